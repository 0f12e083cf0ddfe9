"""Steps of grids learn: of scalar weights, and of what rounds activations as a part of the model.

LSQ (learned step size quantisation, Esser et al., arXiv 1902.08153), with its gradient of a step
``s``: ``round(x / s) - x / s`` inside the grid, its last level beyond. Every step learns as a
factor of what it was, so that one rate does for all sizes. The published factor on the gradient,
``1 / sqrt(n Q)``, is left out: Adam's steps do not depend on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vq.errors import ConfigError
from vq.formats.model import CompressedLayer
from vq.formats.remaining import Remaining, all_remaining
from vq.learning.rules.rule import Rule, Run

__all__ = ["StepLearner", "Steps"]

#: Steps fall no further than to this share of what they were.
_LEAST = 1e-3


@dataclass(frozen=True)
class Steps:
    """Let them learn, wherever there are some.

    Attributes
    ----------
    rate : float
        In units of each step.
    weights, activations : bool
        Which of them. Those of a layer whose weight does not learn stay.
    """

    rate: float = 1e-3
    weights: bool = True
    activations: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ConfigError(f"rate of steps must be positive, not {self.rate!r}")

    def start(self, run: Run) -> "StepLearner":
        """Return the rule at work."""
        layers = [x for x in run.layers if any(tensor.requires_grad for tensor in x.originals)]
        parts = {id(part): part for part in all_remaining(run.model)}
        return StepLearner(
            layers if self.weights else [], parts.values() if self.activations else [], self.rate
        )


class StepLearner(Rule):
    """Frees steps, trains them, and fixes them in the end where they have come to.

    Parameters
    ----------
    layers : iterable of CompressedLayer
    parts : iterable of Remaining
    rate : float
    """

    name = "steps"

    def __init__(
        self, layers: Iterable[CompressedLayer], parts: Iterable[Remaining], rate: float
    ) -> None:
        self._rate = rate
        self._weights = [layer.weight for layer in layers]
        self._parts = list(parts)
        freed = (weight.free_steps() for weight in self._weights)
        self._of_weights: list[Tensor] = [gain for gain in freed if gain is not None]
        others = (part.free_steps() for part in self._parts)
        self._of_parts: list[Tensor] = [gain for gain in others if gain is not None]

    @property
    def _gains(self) -> list[Tensor]:
        return [*self._of_weights, *self._of_parts]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All steps, as factors."""
        return [{"params": self._gains, "lr": self._rate}] if self._gains else []

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep steps positive."""
        for gain in self._gains:
            gain.clamp_(min=_LEAST)

    def telemetry(self) -> dict[str, float]:
        """How far steps are from where they started, in units of each, in the mean."""
        told: dict[str, list[Tensor]] = {
            "weights": self._of_weights, "activations": self._of_parts
        }  # fmt: skip
        return {f"{name}_moved": _moved(own) for name, own in told.items() if own}

    def state_dict(self) -> dict[str, Any]:
        """Factors of the activations' steps; the weights' are the model's."""
        return {"gains": [gain.detach() for gain in self._of_parts]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        for gain, own in zip(self._of_parts, state["gains"], strict=True):
            gain.copy_(own)

    def close(self) -> None:
        """Fix all steps."""
        for weight in self._weights:
            weight.fix_steps()
        for part in self._parts:
            part.fix_steps()


def _moved(gains: list[Tensor]) -> float:
    """Mean distance from 1."""
    return float(torch.cat([(gain.detach() - 1).abs().flatten() for gain in gains]).mean())
