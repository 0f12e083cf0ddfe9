"""The loss of one batch: the user's task, a teacher, or both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import Batch, BatchError, call_model, shapes_of, split, to_device
from vq.errors import ConfigError

__all__ = ["BatchLoss", "Distillation", "Loss", "soft_cross_entropy"]

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Distillation:
    """How a teacher's outputs enter the loss.

    Attributes
    ----------
    weight : float
        Share w of the teacher: ``(1 - w) * task + w * distillation``. At 1, targets are not
        needed. Batches without targets count for the teacher alone.
    temperature : float
        T of ``T**2 * KL(teacher / T || student / T)``, over classes on the last axis.
    loss : callable or None
        ``loss(student_outputs, teacher_outputs)`` instead of that, for anything but logits.
    """

    weight: float = 0.5
    temperature: float = 2.0
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ConfigError(f"distillation weight must be in (0, 1], not {self.weight!r}")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be positive, not {self.temperature!r}")


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T**2 * KL(teacher || student)`` of logits [..., classes], mean over all but the last axis.

    The factor keeps the gradient's size independent of T (arXiv 1503.02531).
    """
    classes = student.shape[-1]
    return temperature**2 * nn.functional.kl_div(
        (student.float() / temperature).log_softmax(-1).reshape(-1, classes),
        (teacher.float() / temperature).log_softmax(-1).reshape(-1, classes),
        reduction="batchmean",
        log_target=True,
    )


class BatchLoss:
    """Loss of a model on one batch.

    Batches are those of :mod:`vq.calibration.batches`. If one has no targets and the model
    computes its own loss (transformers' models given ``labels``), that is the task's loss.

    Parameters
    ----------
    task : callable
        ``task(outputs, targets)``; outputs are the model's, or their ``logits`` if they have any.
    teacher : nn.Module or None
    distillation : Distillation or None
        Only with a teacher; None takes the defaults.
    """

    def __init__(
        self, task: Loss, teacher: nn.Module | None, distillation: Distillation | None
    ) -> None:
        if teacher is None and distillation is not None:
            raise ConfigError("distillation must have a teacher, not none; pass teacher=")
        self._task = task
        self._teacher = teacher
        self._distillation = distillation or Distillation()

    def __call__(self, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        inputs, targets = split(batch)
        outputs = call_model(model, inputs)
        if self._teacher is None:
            return self._task_loss(outputs, targets, device)
        distilled = self._distilled(inputs, outputs)
        weight = self._distillation.weight
        if weight == 1 or (targets is None and _own_loss(outputs) is None):
            return distilled
        return (1 - weight) * self._task_loss(outputs, targets, device) + weight * distilled

    def _task_loss(self, outputs: Any, targets: Any, device: torch.device) -> Tensor:
        if targets is not None:
            return self._task(_logits(outputs), to_device(targets, device))
        own = _own_loss(outputs)
        if own is None:
            raise BatchError(
                "(inputs, targets), not inputs alone; without targets, pass a teacher to distil "
                "from"
            )
        return own

    def _distilled(self, inputs: Any, outputs: Any) -> Tensor:
        assert self._teacher is not None
        if isinstance(inputs, Mapping):
            inputs = {key: value for key, value in inputs.items() if key != "labels"}
        with torch.no_grad():
            wanted = _logits(call_model(self._teacher, inputs))
        given = _logits(outputs)
        if isinstance(given, Tensor):
            wanted = to_device(wanted, given.device)
            if isinstance(wanted, Tensor) and wanted.shape != given.shape:
                raise ConfigError(
                    f"teacher must give outputs {list(given.shape)}, as the model does, not "
                    f"{list(wanted.shape)}, for the inputs {shapes_of(inputs)}"
                )
        if self._distillation.loss is not None:
            return self._distillation.loss(given, wanted)
        return soft_cross_entropy(given, wanted, self._distillation.temperature)


def _logits(outputs: Any) -> Any:
    return outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", outputs)


def _own_loss(outputs: Any) -> Tensor | None:
    found = None if isinstance(outputs, Tensor) else getattr(outputs, "loss", None)
    return found if isinstance(found, Tensor) else None
