"""Distil a compressed model end to end: scales and norms, which cost no bytes, or more."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vq import distributed
from vq.calibration.batches import Batch, as_it_was, device_of, each
from vq.errors import ConfigError, bulleted
from vq.learning.checks import check_models
from vq.learning.finetune import finetune_
from vq.learning.fitting import held_out_of
from vq.learning.objective import BatchLoss, Distillation, Loss
from vq.learning.rates import Rates, learning, parameter_groups
from vq.learning.record import FinetuneResult
from vq.learning.rules.signs import Freezing

__all__ = ["SCALES", "DistilResult", "distil_"]

#: Scales, norms and biases alone.
SCALES = Rates(signs=0, codebooks=0, rest=3e-4, scales=3e-4, kept=0)


@dataclass(frozen=True)
class DistilResult:
    """Record of a run.

    Attributes
    ----------
    before, after : float
        Loss on the batches that are held out, or on all.
    training : FinetuneResult
    """

    before: float
    after: float
    training: FinetuneResult


def distil_(
    model: nn.Module,
    batches: Iterable[Batch],
    teacher: nn.Module,
    *,
    epochs: int = 2,
    rates: Rates = SCALES,
    held_out: float = 0.125,
    loss: Loss | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> DistilResult:
    """Train a compressed model, in place, to give what its teacher gives on calibration data.

    The training is that of :func:`vq.finetune_`, by the teacher's outputs alone. A model whose
    loss on the batches that are held out has not fallen in the end stays as it was.

    Parameters
    ----------
    model : nn.Module
        Compressed.
    batches : iterable of batches
        Inputs, or (inputs, targets), of which targets are ignored.
    teacher : nn.Module
        The model before compression.
    epochs : int
    rates : Rates
        What learns; nothing with a rate of 0 does. By default scales, norms and biases.
    held_out : float
        Share of the batches, the last ones, that judge and do not teach.
    loss : callable, optional
        ``loss(outputs, teacher's outputs)``; if not given, the divergence KL(teacher || model) of
        logits.
    checkpoint_dir, resume, seed, progress
        As in :func:`vq.finetune_`.

    Raises
    ------
    ConfigError
        If ``held_out`` is impossible, or nothing in the model has a rate; and as
        :func:`vq.finetune_`, which raises the others, too.
    """
    if not 0 <= held_out < 1:
        raise ConfigError(
            bulleted("distillation", [f"held_out must be at least 0 and below 1, not {held_out!r}"])
        )
    check_models(model, teacher)
    with learning(model, rates):
        if not any(group["lr"] for group in parameter_groups(model, rates)):
            wanted = "scales, norms or biases" if rates == SCALES else "what has a rate above 0"
            raise ConfigError(bulleted("distillation", [f"model must hold {wanted}, not none"]))
    data = list(each(batches))
    taught, judged = held_out_of(len(data), held_out)
    distillation = Distillation(weight=1.0, temperature=1.0, loss=loss)
    objective = BatchLoss(nn.functional.cross_entropy, teacher, distillation)
    before = _mean_loss(model, teacher, [data[i] for i in judged], objective)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    training = finetune_(
        model,
        [data[i] for i in taught],
        epochs=epochs,
        rates=rates,
        freezing=Freezing() if rates.signs else None,
        teacher=teacher,
        distillation=distillation,
        checkpoint_dir=checkpoint_dir,
        resume=resume,
        seed=seed,
        progress=progress,
    )
    after = _mean_loss(model, teacher, [data[i] for i in judged], objective)
    if not after < before:
        after = before
        model.load_state_dict(start)
    return DistilResult(before, after, training)


@torch.no_grad()
def _mean_loss(
    model: nn.Module, teacher: nn.Module, batches: list[Batch], objective: BatchLoss
) -> float:
    """Mean over batches and processes, both models in evaluation mode."""
    with distributed.together(), as_it_was(model), as_it_was(teacher):
        model.eval()
        teacher.eval()
        losses = [objective(model, batch, device_of(model)).float() for batch in batches]
    return distributed.mean(torch.stack(losses).mean())
