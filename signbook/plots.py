"""Plots as inline SVG, in one style."""

import functools
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["accuracy_bars", "bytes_per_layer", "cycles_per_layer", "training_curves"]

P = ParamSpec("P")

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
ARMS = {"fp32": "#9aa5b1", "int8": "#9aa5b1", "ssvq": "#0b7285", "vq": "#e8890c"}
STALLS = {
    "busy": "#0b7285",
    "memory": "#a5d8dd",
    "codebook": "#f2c14e",
    "decoder": "#e8890c",
    "compute": "#b23a48",
    "writeback": "#6a4c93",
}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "signbook",
}


def _styled(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Turn a function that draws a figure into one that returns it as SVG for inlining."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        buffer = io.StringIO()
        with matplotlib.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
        text = buffer.getvalue()
        size = r'width="[\d.]+pt" height="[\d.]+pt"'  # let the page scale it
        return re.sub(size, 'class="plot"', text[text.index("<svg") :], count=1)

    return styled


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _legend_above(axes: Axes, **settings: Any) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, **settings)


@_styled
def accuracy_bars(accuracy: Mapping[str, float]) -> Figure:
    """Draw test accuracy of fp32 and of every arm, after clustering and after fine-tuning."""
    figure, axes = _axes(5.2, 2.9)
    bars = [
        ("fp32", accuracy["fp32"], ARMS["fp32"], 1.0),
        ("SSVQ\nclustered", accuracy["ssvq_clustered"], ARMS["ssvq"], 0.4),
        ("SSVQ\nfine-tuned", accuracy["ssvq"], ARMS["ssvq"], 1.0),
        ("VQ\nclustered", accuracy["vq_clustered"], ARMS["vq"], 0.4),
        ("VQ\nfine-tuned", accuracy["vq"], ARMS["vq"], 1.0),
    ]
    for x, (_, value, colour, alpha) in enumerate(bars):
        axes.bar(x, 100 * value, color=colour, alpha=alpha, width=0.66)
        axes.annotate(f"{100 * value:.1f}", (x, 100 * value), (0, 3), ha="center",
                      textcoords="offset points")  # fmt: skip
    low = 100 * min(value for _, value, _, _ in bars)
    axes.set_ylim(max(0.0, low - 4), 101.5)
    axes.set_xticks(range(len(bars)), [name for name, *_ in bars])
    axes.set_ylabel("test accuracy, % (axis cut)")
    return figure


@_styled
def training_curves(curves: Mapping[str, Sequence[float]], changed: Sequence[float]) -> Figure:
    """Draw the loss of every arm by epoch, and the share of signs that differ from the start."""
    figure, axes = _axes(5.2, 2.9)
    for arm, losses in curves.items():
        axes.plot(range(1, len(losses) + 1), losses, color=ARMS[arm], label=f"{arm.upper()} loss")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    signs = axes.twinx()
    signs.plot(range(1, len(changed) + 1), [100 * c for c in changed], color=ARMS["ssvq"],
               linestyle=":", label="signs changed")  # fmt: skip
    signs.set_ylabel("signs changed, %")
    signs.set_ylim(bottom=0)
    signs.spines.right.set_visible(True)
    signs.grid(visible=False)
    handles = [*axes.get_legend_handles_labels()[0], *signs.get_legend_handles_labels()[0]]
    _legend_above(axes, handles=handles, ncols=3)
    return figure


@_styled
def bytes_per_layer(runs: Mapping[str, dict[str, Any]]) -> Figure:
    """Draw bytes read on the bus for every layer, in every run."""
    figure, axes = _axes(10.6, 3.0)
    names = [layer["name"] for layer in next(iter(runs.values()))["layers"]]
    width = 0.8 / len(runs)
    for i, (run, document) in enumerate(runs.items()):
        x = [j + (i - (len(runs) - 1) / 2) * width for j in range(len(names))]
        values = [layer["bytes_read"] for layer in document["layers"]]
        axes.bar(x, values, width, color=ARMS["int8" if run == "int8" else "ssvq"], label=run)
    _name_layers(axes, names)
    axes.set_ylabel("bytes read on the bus")
    _legend_above(axes, ncols=2)
    return figure


@_styled
def cycles_per_layer(runs: Mapping[str, dict[str, Any]]) -> Figure:
    """Draw cycles of every layer and run, split into busy cycles and the causes of stalls."""
    figure, axes = _axes(10.6, 3.0)
    names = [layer["name"] for layer in next(iter(runs.values()))["layers"]]
    width = 0.8 / len(runs)
    for i, document in enumerate(runs.values()):
        x = [j + (i - (len(runs) - 1) / 2) * width for j in range(len(names))]
        bottom = [0] * len(names)
        for cause, colour in STALLS.items():
            values = [_cycles(layer, cause) for layer in document["layers"]]
            if any(values):
                axes.bar(x, values, width * 0.94, bottom=bottom, color=colour,
                         label=cause if i == 0 else None)  # fmt: skip
            bottom = [b + v for b, v in zip(bottom, values, strict=True)]
    _name_layers(axes, names)
    axes.set_ylabel("cycles: " + ", then ".join(runs))
    _legend_above(axes, ncols=6)
    return figure


def _cycles(layer: dict[str, Any], cause: str) -> int:
    return int(layer["busy_cycles"] if cause == "busy" else layer["stall_cycles"][cause])


def _name_layers(axes: Axes, names: Iterable[str]) -> None:
    labels = list(names)
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=8)
    axes.margins(x=0.01)
