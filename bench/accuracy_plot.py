"""Loss against bytes on the bus, a panel for each model: rows of any benches that measure them."""

import math
from collections.abc import Callable, Mapping, Sequence
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
from vq.errors import ConfigError

__all__ = ["accuracy_against_bytes"]


Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class _Look:
    """How an arm is drawn; what nothing trains is hollow if its partner is trained.

    ``stored`` is the format whose bytes it reads: an arm of ``real_accelerator.py``.
    """

    label: str
    colour: str
    marker: str
    size: float = 6.5
    hollow: bool = False
    stored: str = "scalar"


#: Arms that are drawn; the tables have more. Colours are formats, but for scalars.
_LOOKS = {
    "rtn": _Look("RTN", "grey", "o"),
    "gptq": _Look("GPTQ", "orange", "^"),
    "gptq-r": _Look("GPTQ-R", "yellow", "v"),
    "gptaq": _Look("GPTAQ", "pink", "D", 5.5),
    "gptaq-r": _Look("GPTAQ-R", "red", "P"),
    "exa": _Look("EXA (QEP)", "blue", "p"),
    "exa@0.5": _Look("EXA (QEP), half", "blue", "X"),
    "fixed-signs": _Look("fixed signs, clustered", "grey", "s", hollow=True, stored="ssvq"),
    "fixed-signs+trained": _Look("fixed signs, trained", "grey", "s", stored="ssvq"),
    "vq": _Look("VQ, clustered", "sky", "h", 8, hollow=True, stored="vq"),
    "gptaq-vq": _Look("VQ, GPTAQ", "sky", "D", 5.5, stored="vq"),
    "qep-vq": _Look("VQ, QEP", "sky", "X", stored="vq"),
    "vq+trained": _Look("VQ, trained", "sky", "h", 8, stored="vq"),
    "ssvq": _Look("SSVQ, clustered", "green", "*", 10, hollow=True, stored="ssvq"),
    "gptaq-ssvq": _Look("SSVQ, GPTAQ", "green", "D", 5.5, stored="ssvq"),
    "gptaq-r-ssvq": _Look("SSVQ, GPTAQ-R", "green", "P", stored="ssvq"),
    "qep-ssvq": _Look("SSVQ, QEP", "green", "X", stored="ssvq"),
    "qep-ssvq+blocks": _Look("the same, tuned", "green", "o", stored="ssvq"),
    "qep-ssvq+blocks+scales": _Look("the same, scales distilled", "green", "s", stored="ssvq"),
    "ssvq+trained": _Look("SSVQ, trained", "green", "*", 10, stored="ssvq"),
}


def _above(mean: float, spread: float, floor: float) -> tuple[float, float]:
    return mean - floor, spread


def _nats_above(mean: float, spread: float, floor: float) -> tuple[float, float]:
    """Of perplexities."""
    return math.log(mean / floor), spread / mean


def _points_below(mean: float, spread: float, floor: float) -> tuple[float, float]:
    """Of shares of right answers."""
    return 100 * (floor - mean), 100 * spread


@dataclass(frozen=True)
class _Panel:
    """A model: the metric that judges it, and how far a mean and its error are from fp32."""

    metric: str
    title: str
    label: str
    loss: Callable[[float, float, float], tuple[float, float]] = _above
    of: str = "token"

    @property
    def log(self) -> bool:
        """Whether losses are of several magnitudes."""
        return self.loss is not _points_below


_PANELS = (
    _Panel("nats_per_token", "stories260K", "nats per token above fp32"),
    _Panel("embedding_error", "MiniLM", "1 - cosine to the fp32 embeddings"),
    _Panel("perplexity", "SmolLM2-135M", "nats per token above fp32", _nats_above),
    _Panel("top1", "EfficientNet-Lite0", "points of top-1 below fp32", _points_below, "image"),
)


@as_svg
def accuracy_against_bytes(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw rows of documents: means with standard errors, arms joined over bits.

    Parameters
    ----------
    rows : sequence of mapping
        ``work``, ``arm``, ``metric``, ``mean``, ``stderr`` and ``bits_per_weight``, as the harness
        writes them. Bytes are an arm's own ``bytes_read``, or those of the arm of its format, at
        its work, whose bits are nearest.

    Raises
    ------
    ConfigError
        If an arm that is drawn has no bytes, or a work no fp32.
    """
    found = {(row["work"], row["arm"], row["metric"]): row for row in rows}
    drawn = {metric for _, arm, metric in found if arm in _LOOKS}
    panels = [panel for panel in _PANELS if panel.metric in drawn]
    height, width = -(-len(panels) // 2), min(2, len(panels))
    figure = Figure(figsize=(WIDE, 4.2 * height + 0.5), layout="constrained")
    # Paper of its own: the file is shown on pages whose colours it does not know.
    figure.patches.append(
        Rectangle((0, 0), 1, 1, transform=figure.transFigure, facecolor=PAPER, zorder=-1)
    )
    places = [*figure.subplots(height, width, squeeze=False).flat]
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, panel in zip(places, panels, strict=False):
        _draw(axes, found, panel)
    handles = {
        h.get_label(): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]
    }
    figure.legend(handles=[*handles.values()], loc="outside upper left", ncols=6, borderpad=0)
    return figure


def _draw(axes: Axes, found: Rows, panel: _Panel) -> None:
    works = list(dict.fromkeys(work for work, _, metric in found if metric == panel.metric))
    losses: list[float] = []
    for arm, look in _LOOKS.items():
        points: list[tuple[float, float, float]] = []
        for work in works:
            row = found.get((work, arm, panel.metric))
            if row is not None:
                floor = _required(found.get((work, "fp32", panel.metric)), f"fp32 of {work!r}")
                x = _bytes_read(found, row, look.stored)
                points.append((x, *panel.loss(row["mean"], row["stderr"], floor["mean"])))
        if points:
            xs, ys, spreads = zip(*sorted(points), strict=True)
            colour = PALETTE[look.colour][0]
            axes.errorbar(xs, ys, spreads, color=colour, marker=look.marker, label=look.label,
                          linestyle="--" if look.hollow else "-", linewidth=1.1,
                          markersize=look.size, markeredgewidth=1.2 if look.hollow else 0.4,
                          markerfacecolor=PAPER if look.hollow else colour, capsize=2,
                          markeredgecolor=colour if look.hollow else INK,
                          ecolor=INK, elinewidth=0.8)  # fmt: skip
            losses += ys
    if panel.log:
        axes.set_yscale("log")
        log_axis(axes.yaxis, min(losses), max(losses))
    value_axis(axes.xaxis)
    axes.grid(visible=True, axis="both")
    axes.set_title(panel.title, loc="left", fontsize=11)
    axes.set_ylabel(panel.label)
    axes.set_xlabel(f"bytes read on the bus per {panel.of}")
    eight = found.get((works[0], "int8", "bytes_read"))
    if eight is not None:
        axes.annotate(f"int8 reads {compact(eight['mean'])} \N{RIGHTWARDS ARROW}", (1, 1), (-4, -4),
                      ha="right", va="top", color=MUTED, xycoords="axes fraction",
                      textcoords="offset points")  # fmt: skip


def _bytes_read(found: Rows, row: Mapping[str, Any], stored: str) -> float:
    """Bytes of an arm: its own, or those of its format."""
    work = row["work"]
    own = found.get((work, row["arm"], "bytes_read"))
    if own is not None:
        return float(own["mean"])
    formats = [
        other
        for (at, arm, metric), other in found.items()
        if (at, metric) == (work, "bytes_read") and arm.partition(" ")[0] == stored
    ]
    nearest = min(
        formats, key=lambda one: abs(one["bits_per_weight"] - row["bits_per_weight"]), default=None
    )
    return float(_required(nearest, f"bytes_read of {stored!r} at {work!r}")["mean"])


def _required(row: Mapping[str, Any] | None, what: str) -> Mapping[str, Any]:
    if row is None:
        raise ConfigError(
            f"figure: {what} must be among the documents' rows, and is not; give the document of "
            "the bench that measures it as well"
        )
    return row
