"""Totals of each run, split by a cause."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from signbook.plots.style import SERIES, as_svg, compact, make_axes, short, value_axis

__all__ = ["split_bars"]


@as_svg
def split_bars(
    runs: Mapping[str, Mapping[str, float]],
    *,
    label: str,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw one bar for each run, made of its parts, with the sum at its end.

    Parameters
    ----------
    runs : mapping of str to mapping
        Amounts by part, all with the same unit, for each run.
    label : str
        Of the axis, with the unit.
    colours : mapping of str to str, optional
        By part; any if left out.
    """
    figure, axes = make_axes(5.2, 1.3 + 0.55 * len(runs))
    parts = list(dict.fromkeys(part for amounts in runs.values() for part in amounts))
    left = [0.0] * len(runs)
    for number, part in enumerate(parts):
        values = [amounts.get(part, 0) for amounts in runs.values()]
        if any(values):
            colour = colours[part] if colours else SERIES[number % len(SERIES)]
            axes.barh(
                range(len(runs)), values, 0.62, left=left, color=colour, label=short(part, 24)
            )
        left = [a + b for a, b in zip(left, values, strict=True)]
    for y, total in enumerate(left):
        axes.annotate(compact(total), (total, y), (4, 0), va="center", textcoords="offset points")
    axes.set_yticks(range(len(runs)), [short(run, 24) for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    value_axis(axes.xaxis)
    axes.set_xlabel(label)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        figure.legend(loc="outside upper left", ncols=3, borderpad=0)
    return figure
