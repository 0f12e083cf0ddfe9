"""Bytes and cycles of each layer."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from signbook.plots.style import (
    STALLS,
    WIDE,
    as_svg,
    legend_above,
    make_axes,
    run_look,
    short,
    value_axis,
)

__all__ = ["bytes_per_layer", "cycles_per_layer"]

#: Inches of a layer's bar, and of what stands above and below all bars.
_BAR, _FRAME = 0.215, 0.95


@as_svg
def bytes_per_layer(names: Sequence[str], runs: Mapping[str, Sequence[int]]) -> Figure:
    """Draw bytes read on the bus for every layer, in every run.

    Parameters
    ----------
    names : sequence of str
        Of the layers.
    runs : mapping of str to sequence of int
        Bytes of each layer, by run.
    """
    figure, axes = make_axes(WIDE, 3.0)
    width = 0.8 / len(runs)
    for i, (run, values) in enumerate(runs.items()):
        x = [j + (i - (len(runs) - 1) / 2) * width for j in range(len(names))]
        axes.bar(x, values, width, color=run_look(run, i)[0], label=short(run))
    axes.set_xticks(
        range(len(names)), [short(n) for n in names], rotation=35, ha="right", fontsize=8
    )
    axes.margins(x=0.01)
    value_axis(axes.yaxis)
    axes.set_ylabel("bytes read on the bus")
    legend_above(axes, ncols=len(runs))
    return figure


@as_svg
def cycles_per_layer(
    names: Sequence[str], runs: Mapping[str, Sequence[Mapping[str, int]]]
) -> Figure:
    """Draw cycles of every layer, split into busy cycles and the causes of stalls.

    Parameters
    ----------
    names : sequence of str
        Of the layers, from top to bottom.
    runs : mapping of str to sequence of mapping
        For each run, and in it for each layer: cycles by cause, of ``STALLS``. Runs stand side by
        side, on one scale.
    """
    figure = Figure(figsize=(WIDE, _FRAME + _BAR * len(names)), layout="constrained")
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (run, layers) in zip(panels, runs.items(), strict=True):
        _stack(axes, layers)
        axes.set_title(short(run), fontsize=9.5, loc="left", fontweight="bold")
        axes.set_xlabel("cycles")
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
    first = panels[0]
    value_axis(first.xaxis)
    first.set_yticks(range(len(names)), [short(name) for name in names], fontsize=8)
    first.set_ylim(len(names) - 0.4, -0.6)
    seen = _seen(layer for layers in runs.values() for layer in layers)
    handles = {cause: first.barh(0, 0, color=STALLS[cause]) for cause in seen}
    figure.legend(handles.values(), handles, loc="outside upper right", ncols=6, borderpad=0)
    return figure


def _seen(layers: Iterable[Mapping[str, int]]) -> list[str]:
    """Causes that have any cycles."""
    every = list(layers)
    return [cause for cause in STALLS if any(layer[cause] for layer in every)]


def _stack(axes: Axes, layers: Sequence[Mapping[str, int]]) -> None:
    left = [0] * len(layers)
    for cause in _seen(layers):
        values = [layer[cause] for layer in layers]
        axes.barh(range(len(layers)), values, 0.72, left=left, color=STALLS[cause])
        left = [a + b for a, b in zip(left, values, strict=True)]
