"""What methods that learn assignments share: one run of training against a teacher's blocks."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from torch import Tensor, nn

from vq.calibration.batches import Batch
from vq.learning.finetune import finetune_
from vq.learning.objective import Distillation, Loss
from vq.learning.observed import Observed, Seen, blocks_of
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult
from vq.learning.rules.candidates import Candidates
from vq.learning.rules.signs import Freezing

__all__ = ["Training", "learn"]


class Training(TypedDict, total=False):
    """What a run of every method takes beside its own settings, as :func:`vq.finetune_` does."""

    checkpoint_dir: str | os.PathLike[str] | None
    checkpoint_steps: int
    resume: bool
    accumulate: int
    amp: str | None
    clip_norm: float | None
    tensorboard: str | os.PathLike[str] | None
    seed: int | None
    progress: bool


def learn(
    model: nn.Module,
    batches: Iterable[Batch],
    teacher: nn.Module,
    candidates: Candidates,
    distance: Loss,
    rates: Rates,
    *,
    task: Loss | None = None,
    blocks: Sequence[str] | None = None,
    epochs: int,
    training: Training,
) -> FinetuneResult:
    """Train a compressed model, in place, with candidates for its codewords.

    Parameters
    ----------
    model : nn.Module
        Compressed.
    batches : iterable of batches
        Inputs; with targets where there is a ``task``.
    teacher : nn.Module
        The model before compression.
    candidates : Candidates
    distance : callable
        ``distance(seen, wanted)`` of two :class:`vq.learning.observed.Seen`, a scalar.
    rates : Rates
        Signs that learn are frozen where they oscillate.
    task : callable, optional
        ``task(outputs, targets)``, which counts as much as the distance.
    blocks : sequence of str, optional
        Modules to look at; if not given, :func:`vq.learning.observed.blocks_of`.
    epochs : int
    training : Training
    """
    names = blocks_of(model) if blocks is None else list(blocks)
    settings: dict[str, Any] = dict(training)
    if task is not None:
        settings["loss"] = _OfOutputs(task)
    return finetune_(
        Observed(model, names),
        batches,
        epochs=epochs,
        rates=rates,
        freezing=Freezing() if rates.signs else None,
        rules=[candidates],
        teacher=Observed(teacher, names),
        distillation=Distillation(weight=1 if task is None else 0.5, loss=distance),
        **settings,
    )


class _OfOutputs:
    """A loss of outputs, as one of what an observed model gives."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def __call__(self, seen: Seen, targets: Any) -> Tensor:
        return self._loss(seen.result, targets)
