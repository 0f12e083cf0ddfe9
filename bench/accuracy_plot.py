"""Loss against bytes on the bus: what ``scalars.py`` measured, a panel for each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from signbook.plots.style import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    WIDE,
    as_svg,
    compact,
    log_axis,
    value_axis,
)

__all__ = ["accuracy_against_bytes"]


@dataclass(frozen=True)
class _Look:
    """How an arm is drawn; what nothing trains is hollow if its partner is trained."""

    label: str
    colour: str
    marker: str
    size: float = 6.5
    hollow: bool = False


#: Arms that are drawn; the table has more.
_LOOKS = {
    "rtn": _Look("RTN", "grey", "o"),
    "gptq": _Look("GPTQ", "orange", "^"),
    "gptq-r": _Look("GPTQ-R", "yellow", "v"),
    "gptaq": _Look("GPTAQ", "pink", "D", 5.5),
    "gptaq-r": _Look("GPTAQ-R", "red", "P"),
    "exa@0.5": _Look("EXA (QEP), half", "blue", "X"),
    "vq": _Look("VQ, clustered", "sky", "h", 8, hollow=True),
    "vq+trained": _Look("VQ, trained", "sky", "h", 8),
    "ssvq": _Look("SSVQ, clustered", "green", "*", 10, hollow=True),
    "ssvq+trained": _Look("SSVQ, trained", "green", "*", 10),
}
#: Metric, title of its panel and of its axis.
_PANELS = (
    ("nats_per_token", "stories260K", "nats per token above fp32"),
    ("embedding_error", "MiniLM", "1 - cosine to the fp32 embeddings"),
)


@as_svg
def accuracy_against_bytes(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the rows of the bench's document: means with standard errors, arms joined over bits.

    Parameters
    ----------
    rows : sequence of mapping
        ``work``, ``arm``, ``metric``, ``mean`` and ``stderr``, as the harness writes them.
    """
    panels = [panel for panel in _PANELS if any(row["metric"] == panel[0] for row in rows)]
    figure = Figure(figsize=(WIDE, 4.7), layout="constrained")
    # Paper of its own: the file is shown on pages whose colours it does not know.
    figure.patches.append(
        Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=PAPER, zorder=-1)
    )
    for axes, (metric, title, label) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _panel(axes, rows, metric)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylabel(label)
    handles = {
        h.get_label(): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]
    }
    figure.legend(handles=[*handles.values()], loc="outside upper left", ncols=6, borderpad=0)
    return figure


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    found = {(row["work"], row["arm"], row["metric"]): row for row in rows}
    works = list(dict.fromkeys(row["work"] for row in rows if row["metric"] == metric))
    losses = []
    for arm, look in _LOOKS.items():
        points = []
        for work in works:
            if (work, arm, metric) in found:
                row, floor = found[work, arm, metric], found[work, "fp32", metric]["mean"]
                x = found[work, arm, "bytes_read"]["mean"]
                points.append((x, row["mean"] - floor, row["stderr"]))
        if points:
            x, y, spread = zip(*sorted(points), strict=True)
            colour = PALETTE[look.colour][0]
            axes.errorbar(x, y, spread, color=colour, marker=look.marker, label=look.label,
                          linestyle="--" if look.hollow else "-", linewidth=1.1,
                          markersize=look.size, markeredgewidth=1.2 if look.hollow else 0.4,
                          markerfacecolor=PAPER if look.hollow else colour, capsize=2,
                          markeredgecolor=colour if look.hollow else INK,
                          ecolor=INK, elinewidth=0.8)  # fmt: skip
            losses += y
    axes.set_yscale("log")
    log_axis(axes.yaxis, min(losses), max(losses))
    value_axis(axes.xaxis)
    axes.grid(visible=True, axis="both")
    axes.set_xlabel("bytes read on the bus per token")
    eight = found.get((works[0], "int8", "bytes_read"))
    if eight is not None:
        axes.annotate(f"int8 reads {compact(eight['mean'])} \N{RIGHTWARDS ARROW}", (1, 1), (-4, -4),
                      ha="right", va="top", color=MUTED, xycoords="axes fraction",
                      textcoords="offset points")  # fmt: skip
