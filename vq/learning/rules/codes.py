"""Freezing of weights that oscillate between two codes of a scalar grid (arXiv 2203.11086).

A weight near the edge of two codes keeps crossing it while it learns, and whichever it ends at says
little. The worst oscillators are frozen first, in the middle of the code that they had most often,
and calmer ones later: by the schedule that signs freeze by (:mod:`vq.learning.rules.signs`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vq.errors import ConfigError
from vq.formats.model import CompressedLayer
from vq.learning.rules.rule import Run
from vq.learning.rules.signs import Freezer, Freezing

__all__ = ["CodeFreezer", "CodeFreezing"]


@dataclass(frozen=True)
class CodeFreezing(Freezing):
    """Schedule of the freezing; a majority is the mean code, rounded, and votes are never "ema"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vote != "majority":
            raise ConfigError(f"vote of codes must be 'majority', not {self.vote!r}")

    def start(self, run: Run) -> "CodeFreezer":  # type: ignore[override]
        """Return the rule at work."""
        return CodeFreezer(run.layers, run.total_steps, self)


class CodeFreezer(Freezer):
    """Watches the codes of scalar layers during training, and freezes the oscillating ones.

    Parameters
    ----------
    layers : iterable of CompressedLayer
        Those without codes are ignored.
    total_steps : int
    schedule : CodeFreezing
    """

    name = "codes"

    def __init__(
        self, layers: Iterable[CompressedLayer], total_steps: int, schedule: CodeFreezing
    ) -> None:
        self._held = [_Codes(x) for x in layers if x.weight.codes(*x.originals) is not None]
        super().__init__(self._held, total_steps, schedule)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Put frozen weights back, take note of the others, and freeze when it is time."""
        for track in self._held:
            track.hold()
        super().after_step(step)
        for track in self._held:
            track.hold()


class _Codes:
    """History of one layer's codes; all tensors are shaped like its weight but the two counts."""

    def __init__(self, layer: CompressedLayer) -> None:
        self._layer = layer
        self.start = self.present = self._now()
        self.direction = torch.zeros_like(self.present)
        self.frequency = torch.zeros_like(self.present, dtype=torch.float32)
        self.votes = torch.zeros_like(self.present, dtype=torch.int32)
        self.frozen = torch.zeros_like(self.present, dtype=torch.bool)
        self.flips = torch.zeros((), dtype=torch.int64, device=self.present.device)
        self.all_flips = torch.zeros_like(self.flips)

    def _now(self) -> Tensor:
        codes = self._layer.weight.codes(*self._layer.originals)
        assert codes is not None
        return codes.to(torch.int8)

    @property
    def changed(self) -> Tensor:
        return self.present != self.start

    def observe(self, momentum: float) -> None:
        now = self._now()
        moved = (now.int() - self.present.int()).sign().to(torch.int8)
        # Of more than two codes, only a change that goes back is an oscillation.
        back = (moved != 0) & (moved == -self.direction)
        self.frequency.lerp_(back.float(), momentum)
        self.direction = torch.where(moved != 0, moved, self.direction)
        self.votes += now
        self.present = now
        self.flips = (moved != 0).sum()
        self.all_flips += self.flips

    def freeze(self, threshold: float, counted: int) -> None:
        new = (self.frequency > threshold) & ~self.frozen
        # Halfway between two codes, the present one stays.
        mean = self.votes / counted
        tie = (mean - mean.floor()) == 0.5
        won = torch.where(tie, self.present, mean.round().to(torch.int8))
        self.present = torch.where(new, won, self.present)
        self.frozen |= new

    def hold(self) -> None:
        """Put frozen weights in the middle of their codes, whatever the step has done to them."""
        original = self._layer.originals[0]
        middle = self._layer.weight.at_codes(self.present.float(), *self._layer.originals)
        original.copy_(torch.where(self.frozen, middle.to(original.dtype), original))

    def tensors(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in vars(self).items() if isinstance(t, Tensor)}
