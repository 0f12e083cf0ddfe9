"""Fine-tune a compressed model: codebooks, signs, and everything that was kept.

This is the door; the parts of a run have a file each: the loss of a batch
(:mod:`vq.learning.objective`), learning rates (:mod:`vq.learning.rates`), the loop
(:mod:`vq.learning.loop`), checkpoints (:mod:`vq.learning.checkpoint`), and every rule that acts
between two steps (:mod:`vq.learning.rules`).
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import Batch, as_it_was
from vq.calibration.whole import whole
from vq.errors import ConfigError, TrainingError, bulleted
from vq.learning.checkpoint import Checkpoints, digest_of, marks_of
from vq.learning.checks import check_models
from vq.learning.loop import Training, TrainingPlan
from vq.learning.objective import BatchLoss, Distillation
from vq.learning.randomness import seeded
from vq.learning.rates import Rates, learning
from vq.learning.record import FinetuneResult
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.refinement import Refinement
from vq.learning.rules.rule import RuleSettings
from vq.learning.rules.signs import Freezing, Watching

__all__ = ["FinetuneResult", "Rates", "finetune_"]


def finetune_(
    model: nn.Module,
    train_loader: Iterable[Batch],
    *,
    epochs: int = 10,
    rates: Rates | None = None,
    freezing: Freezing | None = Freezing(),  # noqa: B008 - frozen dataclass
    refinement: Refinement | None = None,
    rules: Sequence[RuleSettings] = (),
    loss: Callable[[Any, Any], Tensor] = nn.functional.cross_entropy,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    fixed_signs: bool = False,
    amp: str | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_steps: int = 200,
    resume: bool = False,
    tensorboard: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Train a model that :func:`vq.compress_` has compressed, in place.

    Whatever fails, Ctrl-C among it, the model is as it was given, so that a second try works and
    ``resume`` goes on; only after a training that diverges it is in its last good state.

    Adam with a cosine learning rate that ends at zero. Under ``torchrun``, the processes train
    one model on their own shares of the data (docs/training.md).

    Parameters
    ----------
    model : nn.Module
    train_loader : iterable of batches
        Iterated once per epoch; must have a length. A batch is (inputs, targets), or the inputs
        alone where no targets are needed; inputs are a tensor, a tuple or list of arguments,
        or a dictionary of keyword arguments. One whose batches depend on the model that learns has
        ``drawn()``, what a checkpoint is to hold of the present pass, and ``take(drawn)``, after
        which the next pass is that one (:class:`vq.calibration.pools.Pools`).
    epochs : int
    rates : Rates, optional
        Learning rates, weight decay, and the start of the latents.
    freezing : Freezing or None
        None lets all signs move to the end.
    refinement : Refinement or None
        Choose codewords again during training; None keeps them, as the paper does.
    rules : sequence of RuleSettings
        More rules, which act after these (:mod:`vq.learning.rules.rule`). What they tell is under
        ``rules`` in the result and in the lines of the log.
    loss : callable
        ``loss(outputs, targets)`` gives a scalar, the mean over the batch. Outputs are the
        model's, or their ``logits`` if they have any.
    teacher : nn.Module, optional
        Its outputs enter the loss; it does not change. Usually the model before compression.
    distillation : Distillation, optional
        How they do.
    fixed_signs : bool
        Keep every sign as it is; the control that shows what learning them is worth.
    amp : "bf16" or None
        Compute activations in bfloat16. Latents, codebooks and moments stay in float32.
    accumulate : int
        Batches per optimiser step. Without batch norms, the same as one batch of them all.
    clip_norm : float, optional
        Scale the gradient down to this norm.
    checkpoint_dir : path, optional
        Write checkpoints and the log ``run.jsonl`` there.
    checkpoint_steps : int
        Optimiser steps between two checkpoints, and between two looks at whether all is finite.
    resume : bool
        Continue from the newest checkpoint in ``checkpoint_dir``, or start if there is none. Give
        the same arguments and the freshly compressed model; on CPU, the result is that of a run
        without interruption, bit for bit.
    tensorboard : path, optional
        Write scalars for TensorBoard there: the loss of every step, and what the rules tell. Needs
        the extra ``tensorboard``.
    seed : int, optional
        Of everything random during the run. None goes on with the global random state.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the model holds no compressed layer, the loader no batch, a setting is impossible,
        TensorBoard is missing, or the model or the loss does not accept a batch.
    ResumeError
        If the checkpoint belongs to another run, or none is whole.
    TrainingError
        If the loss or the weights stop being finite; the model is then in its last good state.
    OutputError
        If a checkpoint cannot be written; earlier ones are as they were.
    """
    rates = rates or Rates()
    batches = _length(train_loader)
    _check(epochs, batches, amp, accumulate, clip_norm, checkpoint_steps, seed)
    check_models(model, teacher)
    if resume and checkpoint_dir is None:
        raise ConfigError("checkpoint_dir must be given to resume, not None")
    freezing = None if fixed_signs else freezing
    plan = TrainingPlan(
        epochs=epochs,
        batches=batches,
        accumulate=accumulate,
        rates=rates,
        rules=[Clamping(), freezing or Watching(), *([refinement] if refinement else []), *rules],
        fixed_signs=fixed_signs,
        amp=amp,
        clip_norm=clip_norm,
        checkpoint_steps=checkpoint_steps,
    )
    settings = {
        "epochs": epochs,
        "batches": batches,
        "accumulate": accumulate,
        "rates": asdict(rates),
        "freezing": None if freezing is None else asdict(freezing),
        "refinement": None if refinement is None else asdict(refinement),
        **({"rules": [repr(rule) for rule in rules]} if rules else {}),
        "fixed_signs": fixed_signs,
        "amp": amp,
        "clip_norm": clip_norm,
        "checkpoint_steps": checkpoint_steps,
        "loss": _name(loss),
        "distillation": None if distillation is None else _plain(distillation),
        "seed": seed,
        "ranks": distributed.ranks(),
    }
    objective = BatchLoss(loss, teacher, distillation)
    checkpoints = None
    if distributed.ranks() > 1:
        distributed.require_same("weights to train", digest_of(model))
        distributed.require_same("settings and the number of batches", settings)
    if checkpoint_dir is not None:
        with distributed.together():
            checkpoints = Checkpoints(checkpoint_dir, _fingerprint(model, teacher, settings))
            if not resume:
                checkpoints.require_none()
    with ExitStack() as stack:
        stack.enter_context(whole(model, trained=True, but=(TrainingError,)))
        stack.enter_context(seeded(None if seed is None else seed + distributed.rank()))
        if teacher is not None:
            stack.enter_context(as_it_was(teacher))
            teacher.eval()
        stack.enter_context(learning(model, rates))
        training = Training(
            model, train_loader, plan, objective, checkpoints, tensorboard, settings
        )
        return training.run(resume=resume, progress=progress)


def _length(loader: object) -> int:
    if not isinstance(loader, Sized):
        return 0
    try:
        return len(loader)
    except TypeError:  # a DataLoader over a stream
        return 0


def _check(
    epochs: int,
    batches: int,
    amp: str | None,
    accumulate: int,
    clip_norm: float | None,
    checkpoint_steps: int,
    seed: int | None,
) -> None:
    if not batches or epochs < 1:
        raise ConfigError(
            f"training must have at least one step, not {epochs} epochs of {batches} batches; "
            "the loader must have a length"
        )
    problems = []
    if amp not in (None, "bf16"):
        problems.append(f"amp must be None or 'bf16', not {amp!r}")
    if accumulate < 1:
        problems.append(f"accumulate must be positive, not {accumulate!r}")
    if clip_norm is not None and not 0 < clip_norm < math.inf:
        problems.append(f"clip_norm must be positive, not {clip_norm!r}")
    if checkpoint_steps < 1:
        problems.append(f"checkpoint_steps must be positive, not {checkpoint_steps!r}")
    if seed is not None and seed < 0:
        problems.append(f"seed must not be negative, not {seed!r}")
    if problems:
        raise ConfigError(bulleted("training", problems))


def _fingerprint(
    model: nn.Module, teacher: nn.Module | None, settings: dict[str, Any]
) -> dict[str, str]:
    """Everything a run depends on but its data, by subject."""
    names = ("seed", "ranks", "checkpoint_steps")
    return marks_of(model) | {
        "teacher": "none" if teacher is None else digest_of(teacher),
        "settings": repr({key: value for key, value in settings.items() if key not in names}),
        "seed": str(settings["seed"]),
        "ranks": str(settings["ranks"]),
    }


def _name(function: object) -> str:
    """Name of a function or of a callable object's class; stable from run to run."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{getattr(named, '__qualname__', '')}"


def _plain(distillation: Distillation) -> dict[str, Any]:
    own = None if distillation.loss is None else _name(distillation.loss)
    weight, temperature = distillation.weight, distillation.temperature
    return {"weight": weight, "temperature": temperature, "loss": own}
