"""What a rule is: a part of training that the loop knows by these methods alone.

A rule comes in two halves. Its settings are a small frozen dataclass, whose ``repr`` tells one run
from another; their ``start`` gives the rule at work, a :class:`Rule`, for one run of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from vq.formats.model import CompressedLayer
from vq.learning.rates import Rates

__all__ = ["Rule", "RuleSettings", "Run"]


@dataclass(frozen=True, eq=False)
class Run:
    """What a rule starts from.

    Attributes
    ----------
    model : nn.Module
        Bare, with the weights that training starts from. A rule that acts at forward time
        registers its hooks here, and removes them in :meth:`Rule.close`.
    layers : sequence of CompressedLayer
        Those of the model.
    total_steps : int
        Optimiser steps of the whole run.
    rates : Rates
        Of which ``alpha`` multiplies the latents once all rules have started.
    """

    model: nn.Module
    layers: Sequence[CompressedLayer]
    total_steps: int
    rates: Rates


class Rule:
    """A rule at work. Every method may be left out; these do nothing.

    Steps are counted as those that are complete: 0 before the first.

    Attributes
    ----------
    name : str
        Key of its state in checkpoints and of its numbers in logs; no two rules of a run share it.
    """

    name: ClassVar[str]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Tensors of its own to train: ``params`` and ``lr``, as torch's optimisers take them.

        AdamW moves them, with rates that fall along the run's cosine; their gradients are averaged
        over all processes. Asked for once, after the start.
        """
        return []

    def start_epoch(self) -> None:
        """Begin to count what is told per epoch."""

    def penalty(self, step: int) -> Tensor | None:
        """Term to add to the loss: a scalar function of trained tensors, not of activations.

        Only its gradient is taken; the losses that are recorded are those of the data.
        """
        return None

    def before_step(self, step: int) -> None:
        """See or change the gradients, which are complete and equal on all processes."""

    def after_step(self, step: int) -> None:
        """See or change the weights, after the optimiser's step."""

    def telemetry(self) -> Mapping[str, float]:
        """Numbers for the log, by name."""
        return {}

    def note(self) -> str:
        """Say a few words for the progress bar."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Return what it must know to continue: tensors and plain values, none of the model's.

        With several processes, that of the first is saved, and all read it.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""

    def close(self) -> None:
        """Remove all hooks."""


class RuleSettings(Protocol):
    """Settings of a rule, such as :class:`vq.Freezing`; a frozen dataclass will do."""

    def start(self, run: Run) -> Rule:
        """Return the rule at work in one run."""
        ...
