"""Codewords of sign-split layers are magnitudes: a negative one would undo the split."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from vq.formats.model import CompressedLayer
from vq.learning.rules.rule import Rule, Run

__all__ = ["Clamper", "Clamping", "clamp_magnitudes_"]


@dataclass(frozen=True)
class Clamping:
    """Stop codewords at zero after every step; :func:`vq.finetune_` always does."""

    def start(self, run: Run) -> "Clamper":
        """Return the rule at work."""
        return Clamper(run.layers)


class Clamper(Rule):
    """Clamps the codebooks of layers that have signs."""

    name = "clamping"

    def __init__(self, layers: Iterable[CompressedLayer]) -> None:
        self._layers = list(layers)

    def after_step(self, step: int) -> None:
        """Clamp."""
        clamp_magnitudes_(self._layers)


@torch.no_grad()
def clamp_magnitudes_(layers: Iterable[CompressedLayer]) -> None:
    """Replace negative codewords of sign-split layers by zero."""
    for layer in layers:
        if layer.latent is not None:
            assert layer.codebook is not None
            layer.codebook.clamp_(min=0)
