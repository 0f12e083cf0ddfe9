"""Points of a sweep by two of its objectives, and the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from signbook.plots.style import INK, SERIES, WIDE, as_svg, log_axis, make_axes, short, value_axis

__all__ = ["Mark", "pareto"]

_MARKERS = "os^vDPX*"
#: Different values up to which each has a tick of its own.
_TICKS = 6


@dataclass(frozen=True)
class Mark:
    """One point.

    Attributes
    ----------
    x, y : float
    series : str
        Points of one series share a colour and a marker.
    number : int or None
        By which a table names it, if it is on the front.
    """

    x: float
    y: float
    series: str
    number: int | None = None


@as_svg
def pareto(marks: Sequence[Mark], *, x: str, y: str) -> Figure:
    """Draw points by two objectives; those on the front are full, joined and numbered."""
    figure, axes = make_axes(WIDE, 4.4)
    for axis, scaled, values in (
        (axes.xaxis, axes.set_xscale, [m.x for m in marks]),
        (axes.yaxis, axes.set_yscale, [m.y for m in marks]),
    ):
        low, high = min(values), max(values)
        if low > 0 and high > 8 * low:
            scaled("log")
            distinct = sorted(set(values))
            log_axis(axis, low, high, distinct if len(distinct) <= _TICKS else ())
        else:
            value_axis(axis)
    axes.grid(visible=True, axis="both")
    front = sorted((m for m in marks if m.number is not None), key=lambda m: (m.x, m.y))
    axes.plot([m.x for m in front], [m.y for m in front], color=INK, linewidth=0.8, alpha=0.6)
    for number, series in enumerate(dict.fromkeys(m.series for m in marks)):
        colour, marker = SERIES[number % len(SERIES)], _MARKERS[number % len(_MARKERS)]
        for chosen, alpha, size in ((False, 0.35, 16), (True, 1.0, 40)):
            some = [m for m in marks if m.series == series and (m.number is not None) == chosen]
            if some:
                axes.scatter([m.x for m in some], [m.y for m in some], s=size, color=colour,
                             marker=marker, alpha=alpha, linewidths=0.5,
                             edgecolors=INK if chosen else "none")  # fmt: skip
        axes.scatter([], [], s=40, color=colour, marker=marker, label=short(series))
    for mark in front:
        axes.annotate(str(mark.number), (mark.x, mark.y), (5, 5), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    figure.legend(loc="outside upper left", ncols=3, borderpad=0)
    return figure
