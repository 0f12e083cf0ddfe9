"""Loss against bytes on the bus: what ``rescomp.py`` measured, a panel for each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from signbook.plots.style import INK, PALETTE, PAPER, WIDE, as_svg, log_axis

__all__ = ["accuracy_against_bytes"]


@dataclass(frozen=True)
class _Look:
    """How an arm is drawn."""

    label: str
    colour: str
    marker: str
    line: str = "-"


def _look(label: str, colour: str, marker: str, line: str = "-") -> _Look:
    return _Look(label, PALETTE[colour][0], marker, line)


#: Arms that are drawn; the table has more.
_LOOKS = {
    "int8": _look("int8", "muted", "s"),
    "rtn": _look("RTN", "grey", "o"),
    "gptq": _look("GPTQ", "orange", "^"),
    "gptq-r": _look("GPTQ-R", "yellow", "v"),
    "gptaq": _look("GPTAQ", "pink", "D"),
    "gptaq-r": _look("GPTAQ-R", "red", "P"),
    "exa": _look("EXA (QEP)", "blue", "X"),
    "vq": _look("VQ", "sky", "h", "--"),
    "ssvq": _look("SSVQ", "green", "*", "--"),
    "vq+trained": _look("VQ, trained", "sky", "h"),
    "ssvq+trained": _look("SSVQ, trained", "green", "*"),
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
    figure = Figure(figsize=(WIDE, 4.9), layout="constrained")
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
    xs, ys = [], []
    for arm, look in _LOOKS.items():
        points = {}
        for work in works:
            if (work, arm, metric) in found:
                row, floor = found[work, arm, metric], found[work, "fp32", metric]["mean"]
                x = found[work, arm, "bytes_read"]["mean"]
                points[x] = (row["mean"] - floor, row["stderr"])
        if not points:
            continue
        x = sorted(points)
        y, spread = zip(*(points[at] for at in x), strict=True)
        axes.errorbar(x, y, spread, color=look.colour, marker=look.marker, linestyle=look.line,
                      label=look.label, markersize=7, linewidth=1.1, markeredgecolor=INK,
                      markeredgewidth=0.4, capsize=2, ecolor=INK, elinewidth=0.8)  # fmt: skip
        xs += x
        ys += y
    axes.set_yscale("log")
    axes.set_xscale("log")
    axes.grid(visible=True, axis="both")
    log_axis(axes.yaxis, min(ys), max(ys))
    ticks = sorted(set(xs))
    axes.set_xlabel("bytes read on the bus per token")
    log_axis(axes.xaxis, ticks[0], ticks[-1])
