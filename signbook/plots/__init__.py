"""Plots as inline SVG, in one style.

============  ==================================================
module        what it draws
============  ==================================================
style         colours, and what makes inline SVG of a figure
training      accuracy and losses of a training
layers        bytes and cycles of each layer
bars          totals of each run, split by a cause
roofline      multiplications per byte and per cycle
surface       speed-up over bandwidth and multipliers
front         points of a sweep, and the best of them
samples       images that models drew
drift         how far two models' ways from equal noise part
============  ==================================================
"""

from signbook.plots.bars import split_bars
from signbook.plots.drift import drift_curve
from signbook.plots.front import Mark, pareto
from signbook.plots.layers import bytes_per_layer, cycles_per_layer
from signbook.plots.roofline import Point, roofline
from signbook.plots.samples import sample_sheet
from signbook.plots.surface import Panel, surface
from signbook.plots.training import accuracy_bars, loss_bars, training_curves

__all__ = [
    "Mark",
    "Panel",
    "Point",
    "accuracy_bars",
    "bytes_per_layer",
    "cycles_per_layer",
    "drift_curve",
    "loss_bars",
    "pareto",
    "roofline",
    "sample_sheet",
    "split_bars",
    "surface",
    "training_curves",
]
