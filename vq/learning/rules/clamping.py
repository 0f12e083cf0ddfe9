"""Trained tensors stay where they mean what they should, as codewords that are magnitudes."""

from collections.abc import Iterable
from dataclasses import dataclass

from vq.formats.model import CompressedLayer
from vq.learning.rules.rule import Rule, Run

__all__ = ["Clamper", "Clamping"]


@dataclass(frozen=True)
class Clamping:
    """Ask every layer to after every step; :func:`vq.finetune_` always does."""

    def start(self, run: Run) -> "Clamper":
        """Return the rule at work."""
        return Clamper(run.layers)


class Clamper(Rule):
    """Puts back what a step has moved too far (:meth:`vq.formats.weights.Compressed.clamp_`)."""

    name = "clamping"

    def __init__(self, layers: Iterable[CompressedLayer]) -> None:
        self._layers = list(layers)

    def after_step(self, step: int) -> None:
        """Clamp."""
        for layer in self._layers:
            layer.clamp_()
