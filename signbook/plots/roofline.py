"""The roofline: what a layer does with a byte, and what the hardware lets it do in a cycle."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from signbook.plots.style import (
    INK,
    MUTED,
    WIDE,
    as_svg,
    compact,
    label_box,
    legend_above,
    log_axis,
    make_axes,
    run_look,
    short,
)

__all__ = ["Point", "ranges", "roofline"]

_HEIGHT = 4.6
#: Inches, across and up, within which points share one label.
_NEAR = (0.30, 0.17)


@dataclass(frozen=True)
class Point:
    """One layer in all runs.

    Attributes
    ----------
    number : int
        By which a table names it.
    places : dict of str to tuple of float
        By run: multiplications per byte read, and per cycle. Both above 0.
    """

    number: int
    places: dict[str, tuple[float, float]]


@as_svg
def roofline(
    points: Sequence[Point], *, multipliers: float, bandwidths: Mapping[str, float]
) -> Figure:
    """Draw layers under the roofs of the array and of the memory.

    Parameters
    ----------
    points : sequence of Point
        At least one. A line joins the places of a layer in the order of its runs.
    multipliers : float
        Multiplications per cycle at most.
    bandwidths : mapping of str to float
        Bytes per cycle at most, by what sets that limit.
    """
    figure, axes = make_axes(WIDE, _HEIGHT)
    runs = list(dict.fromkeys(run for point in points for run in point.places))
    for point in points:
        xs, ys = zip(*point.places.values(), strict=True)
        axes.plot(xs, ys, color=MUTED, linewidth=0.7, alpha=0.55, zorder=2)
    for number, run in enumerate(runs):
        colour, marker = run_look(run, number)
        xs, ys = zip(*(p.places[run] for p in points if run in p.places), strict=True)
        axes.scatter(xs, ys, s=34, color=colour, marker=marker, label=short(run), zorder=3,
                     edgecolors=INK, linewidths=0.5)  # fmt: skip
    every = [place for point in points for place in point.places.values()]
    knees = [multipliers / bandwidth for bandwidth in bandwidths.values()]
    low = min([x for x, _ in every] + [k / 3 for k in knees]) / 1.5
    high = max([x for x, _ in every] + [k * 3 for k in knees]) * 1.5
    bottom, top = min(y for _, y in every) / 2, max([multipliers] + [y for _, y in every]) * 1.9
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top)
    log_axis(axes.xaxis, low, high)
    log_axis(axes.yaxis, bottom, top)
    axes.grid(visible=True, axis="both")
    _roofs(axes, multipliers, bandwidths, [math.log(x) for x, _ in every])
    _labels(axes, points)
    axes.set_xlabel("multiplications per byte read")
    axes.set_ylabel("multiplications per cycle")
    legend_above(axes, ncols=len(runs))
    return figure


def _roofs(
    axes: Axes, multipliers: float, bandwidths: Mapping[str, float], taken: Sequence[float]
) -> None:
    """Draw and name the roofs; names stand away from ``taken``, logarithms along the axis."""
    low, high = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    nearest = min((multipliers / b for b in bandwidths.values()), default=low)
    axes.plot([max(low, nearest), high], [multipliers, multipliers], color=INK, linewidth=1.4)
    axes.annotate(f"array: {multipliers:,.4g} per cycle", (high, multipliers), (-2, 4), ha="right",
                  textcoords="offset points", fontsize=8.5)  # fmt: skip
    for number, (name, bandwidth) in enumerate(bandwidths.items()):
        style = "-" if number == 0 else (0, (4, 3))
        start, knee = max(low, bottom / bandwidth), min(high, multipliers / bandwidth)
        axes.plot([start, knee], [start * bandwidth, knee * bandwidth], color=INK, linewidth=1.4,
                  linestyle=style)  # fmt: skip
        places = [math.log(start) + part / 8 * math.log(knee / start) for part in range(1, 8)]
        middle = math.exp(max(places, key=lambda at: min(abs(at - other) for other in taken)))
        axes.text(middle, middle * bandwidth * 1.1, f"{name}: {compact(bandwidth)} bytes per cycle",
                  ha="center", va="bottom", fontsize=8.5, rotation_mode="anchor",
                  rotation=math.degrees(math.atan(bandwidth)),
                  transform_rotates_text=True)  # fmt: skip


def _labels(axes: Axes, points: Sequence[Point]) -> None:
    """Number the points at their place in the first run; those that lie close share a label."""
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    groups: list[tuple[float, float, list[int]]] = []
    for point in points:
        x, y = next(iter(point.places.values()))
        u = (WIDE - 0.8) * math.log(x / low) / math.log(high / low)
        v = (_HEIGHT - 0.9) * math.log(y / bottom) / math.log(top / bottom)
        for a, b, numbers in groups:
            if abs(a - u) < _NEAR[0] and abs(b - v) < _NEAR[1]:
                numbers.append(point.number)
                break
        else:
            groups.append((u, v, [point.number]))
    by_number = {point.number: next(iter(point.places.values())) for point in points}
    for u, _, numbers in groups:
        side, shift = ("left", 6) if u < 0.82 * WIDE else ("right", -6)
        axes.annotate(ranges(numbers), by_number[numbers[0]], (shift, -9), ha=side, fontsize=8,
                      textcoords="offset points", bbox=label_box(), zorder=4)  # fmt: skip


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in short.

    >>> ranges([1, 2, 3, 5, 7, 8])
    '1–3, 5, 7, 8'
    """
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    parts = [
        [f"{span[0]}–{span[-1]}"] if len(span) > 2 else [str(number) for number in span]
        for span in spans
    ]
    return ", ".join(text for part in parts for text in part)
