"""How far two models' ways from equal noise part."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from signbook.plots.style import SERIES, as_svg, make_axes, value_axis

__all__ = ["drift_curve"]


@as_svg
def drift_curve(errors: Sequence[float]) -> Figure:
    """Draw the difference of what two models are given, as a share of the original, by step."""
    figure, axes = make_axes(5.2, 2.9)
    axes.plot(
        range(1, len(errors) + 1),
        [100 * error for error in errors],
        color=SERIES[0],
        marker="o",
        markersize=3,
    )
    value_axis(axes.xaxis)
    value_axis(axes.yaxis)
    axes.set_ylim(bottom=0, top=None if any(errors) else 1)
    axes.set_xlabel("step of sampling")
    axes.set_ylabel("difference, % of the original")
    return figure
