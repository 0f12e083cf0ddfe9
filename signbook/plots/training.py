"""Accuracy and losses of a training."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from signbook.plots.style import PALETTE, as_svg, legend_above, log_axis, make_axes

__all__ = ["NAMES", "accuracy_bars", "loss_bars", "training_curves"]

#: Arms as people read them, and their colours.
NAMES = {"fp32": "fp32", "ssvq": "SSVQ", "vq": "VQ", "fixed_signs": "fixed signs"}
ARMS = {
    "fp32": PALETTE["grey"][0],
    "ssvq": PALETTE["accent"][0],
    "vq": PALETTE["orange"][0],
    "fixed_signs": PALETTE["pink"][0],
}


@as_svg
def accuracy_bars(accuracy: Mapping[str, float]) -> Figure:
    """Draw test accuracy of fp32 and of every arm, after clustering and after fine-tuning."""
    figure, axes = make_axes(5.2, 2.9)
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


@as_svg
def loss_bars(losses: Mapping[str, float]) -> Figure:
    """Draw the loss of fp32 and of every arm, in nats per token; the less the better."""
    figure, axes = make_axes(5.2, 2.9)
    for x, (arm, loss) in enumerate(losses.items()):
        axes.bar(x, loss, color=ARMS[arm], width=0.66)
        axes.annotate(f"{loss:.3f}", (x, loss), (0, 3), ha="center", textcoords="offset points")
    low, high = min(losses.values()), max(losses.values())
    axes.set_ylim(max(0.0, low - (high - low) - 0.01), high + 0.3 * (high - low) + 0.01)
    axes.set_xticks(range(len(losses)), [NAMES[arm] for arm in losses])
    axes.set_ylabel("held-out loss, nats per token (axis cut)")
    return figure


@as_svg
def training_curves(curves: Mapping[str, Sequence[float]], changed: Sequence[float]) -> Figure:
    """Draw the loss of every arm by epoch, and the share of signs that differ from the start."""
    figure, axes = make_axes(5.2, 2.9)
    for arm, losses in curves.items():
        label = f"{NAMES[arm]} loss"
        axes.plot(range(1, len(losses) + 1), losses, color=ARMS[arm], label=label)
    axes.set_yscale("log")
    every = [loss for losses in curves.values() for loss in losses]
    log_axis(axes.yaxis, min(every), max(every))
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
    legend_above(axes, handles=handles, ncols=3)
    return figure
