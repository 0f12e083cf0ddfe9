"""Speed-up over bandwidth and multipliers, a panel for each number of rows."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from signbook.plots.style import WIDE, as_svg, label_box, log_axis

__all__ = ["GOAL", "NO_GAIN", "Panel", "surface"]

#: Speed-up whose contour is drawn, and below which nothing is gained.
GOAL, NO_GAIN = 3.0, 1.05
#: Values along an axis up to which each place shows its number.
_NUMBERED = 10
_ACROSS = 3
#: From dark blue to light yellow, whoever looks; so few that their bar is drawn, not an image.
COLOURS = colormaps["cividis"].resampled(48)


@dataclass(frozen=True, eq=False)
class Panel:
    """One surface.

    Attributes
    ----------
    title : str
    bandwidths, multipliers : sequence of float
        Bytes per cycle and multiplications per cycle that were measured, ascending.
    speedups : ndarray
        float[multipliers, bandwidths]; NaN where nothing was measured.
    marks : list of (float, float, str)
        Bandwidth, multipliers and text of points that another engine measured.
    """

    title: str
    bandwidths: Sequence[float]
    multipliers: Sequence[float]
    speedups: NDArray[np.float64]
    marks: list[tuple[float, float, str]] = field(default_factory=list)


@as_svg
def surface(panels: Sequence[Panel]) -> Figure:
    """Draw panels with one scale of colours, the contour of 3x, and what gains nothing hatched."""
    count = min(_ACROSS, len(panels))
    lines = -(-len(panels) // count)
    width = min(WIDE, 1.3 + 4.6 * count)
    figure = Figure(figsize=(width, 0.3 + 3.35 * lines), layout="constrained")
    grid = figure.subplots(lines, count, squeeze=False).flatten()
    most = max(float(np.nanmax(panel.speedups)) for panel in panels)
    scale = Normalize(1, max(most, GOAL + 0.5))
    for number, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        _panel(axes, panel, scale)
        axes.set_title(panel.title, fontsize=9.5, loc="left", fontweight="bold")
        if number % count == 0:
            axes.set_ylabel("multiplications per cycle (R x C)")
        if number + count >= len(panels):
            axes.set_xlabel("memory, bytes per cycle")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=list(grid), shrink=0.9, pad=0.015, aspect=28
    )
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    bar.set_label("speed-up over int8")
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_edgecolor("face")  # no seams
    return figure


def _panel(axes: Axes, panel: Panel, scale: Normalize) -> None:
    xs, ys, values = panel.bandwidths, panel.multipliers, panel.speedups
    x_edges, y_edges = _edges(xs), _edges(ys)
    axes.set_xscale("log")
    axes.set_yscale("log")
    mesh = axes.pcolormesh(
        x_edges, y_edges, np.ma.masked_invalid(values), cmap=COLOURS, norm=scale, linewidth=0.3
    )
    mesh.set_edgecolor("face")
    log_axis(axes.xaxis, 1, 2, _thinned(xs))
    log_axis(axes.yaxis, 1, 2, _thinned(ys))
    axes.grid(visible=False)
    for (j, i), value in np.ndenumerate(values):
        if value < NO_GAIN:
            axes.add_patch(Rectangle((x_edges[i], y_edges[j]), x_edges[i + 1] - x_edges[i],
                                     y_edges[j + 1] - y_edges[j], fill=False, hatch="////",
                                     edgecolor="#8f9bb3", linewidth=0))  # fmt: skip
    if len(xs) > 1 and len(ys) > 1:
        _contour(axes, panel)
    marked = {(x, y) for x, y, _ in panel.marks}
    if max(len(xs), len(ys)) <= _NUMBERED:
        for (j, i), value in np.ndenumerate(values):
            if not math.isnan(value):
                up = 9 if (xs[i], ys[j]) in marked else 0
                axes.annotate(f"{value:.2f}", (xs[i], ys[j]), (0, up), ha="center", va="center",
                              textcoords="offset points", fontsize=8, zorder=5,
                              color=_on(COLOURS(scale(value))))  # fmt: skip
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    _marks(axes, panel)


def _contour(axes: Axes, panel: Panel) -> None:
    values = np.ma.masked_invalid(panel.speedups)
    if not values.min() < GOAL <= values.max():
        return
    # Up to the borders of the outer cells, as if nothing changed there.
    xs, ys = (
        [edges[0], *inner, edges[-1]]
        for inner in (panel.bandwidths, panel.multipliers)
        for edges in (_edges(inner),)
    )
    lines = axes.contour(xs, ys, np.ma.masked_invalid(np.pad(panel.speedups, 1, "edge")), [GOAL],
                         colors="#fefefe", linewidths=2, zorder=4)  # fmt: skip
    lines.set_path_effects([Stroke(linewidth=3.6, foreground="#111111"), Stroke(linewidth=2)])
    for text in axes.clabel(lines, fmt=lambda value: f"{value:g}x", fontsize=9, colors="#111111"):
        text.set_bbox({"facecolor": "#fefefe", "edgecolor": "none", "pad": 1.2})
        text.set_fontweight("bold")
        text.set_zorder(6)


def _marks(axes: Axes, panel: Panel) -> None:
    for x, y, text in panel.marks:
        _make_room(axes.get_xlim, axes.set_xlim, x)
        _make_room(axes.get_ylim, axes.set_ylim, y)
        axes.plot([x], [y], marker="D", markersize=5, color="#d55e00", markeredgecolor="#fefefe",
                  markeredgewidth=0.8, zorder=6, clip_on=False)  # fmt: skip
        axes.annotate(text, (x, y), (0, -7), ha="center", va="top", textcoords="offset points",
                      fontsize=7.5, fontweight="bold", bbox=label_box(), zorder=7)  # fmt: skip


def _make_room(
    limits: Callable[[], tuple[float, float]], limit: Callable[[float, float], object], at: float
) -> None:
    """Widen an axis for a mark outside it, with its text."""
    low, high = limits()
    limit(at / 1.8 if at < low else low, at * 1.8 if at > high else high)


def _edges(values: Sequence[float]) -> list[float]:
    """Borders of cells around values, on a logarithmic scale: one more than there are values."""
    if len(values) == 1:
        return [values[0] / math.sqrt(2), values[0] * math.sqrt(2)]
    inner = [math.sqrt(a * b) for a, b in itertools.pairwise(values)]
    return [values[0] ** 2 / inner[0], *inner, values[-1] ** 2 / inner[-1]]


def _thinned(values: Sequence[float]) -> list[float]:
    """At most about ten of them, for ticks."""
    return list(values[:: -(-len(values) // _NUMBERED)])


def _on(colour: tuple[float, ...]) -> str:
    """Black or white, whichever is read on a colour."""
    red, green, blue = colour[:3]
    return "#111111" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#fefefe"
