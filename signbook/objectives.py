"""What a task means to those who learn or calibrate on it: batches, losses, teachers."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from signbook.meters import embedding_of
from signbook.meters.meter import pair, require
from signbook.tasks import (
    Classification,
    Denoising,
    Embedding,
    Generation,
    LanguageModelling,
    Task,
)
from vq.calibration.batches import device_of, each, fingerprint, on_batch, shapes_of
from vq.calibration.sharing import Around, Share
from vq.distributed import gather, rank, ranks, require_same, together
from vq.errors import ConfigError
from vq.learning.objective import BatchLoss, Distillation

__all__ = [
    "IGNORED",
    "Embedded",
    "Objective",
    "calibration_of",
    "label_loss",
    "next_token_loss",
    "objective_of",
    "part_of",
]

#: Label of a token that is not to be predicted.
IGNORED = -100
_CALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class Objective:
    """What training on a task needs.

    Attributes
    ----------
    batches : sized iterable of (inputs, targets), or of inputs
    loss : callable
        ``loss(outputs, targets)``.
    distillation_loss : callable or None
        ``loss(student, teacher)`` where the divergence of logits makes no sense.
    needs_teacher : bool
        There are no targets: the original model is what there is to learn from.
    shared : bool
        The batches are this process's part of those that all are to know.
    """

    batches: Any
    loss: Callable[[Any, Any], Tensor]
    distillation_loss: Callable[[Any, Any], Tensor] | None = None
    needs_teacher: bool = False
    shared: bool = False

    def calibration(self, count: int = _CALIBRATION_BATCHES) -> list[Any]:
        """The first batches of a pass over the data, the same ones for every use and process."""
        with together():
            own = list(itertools.islice(each(self.batches), count))
        return [batch for part in gather(own) for batch in part] if self.shared else own

    def mine(self, seed: int) -> "Objective":
        """This process's part, where several learn together; ``seed`` is that of the loader."""
        if ranks() == 1:
            return self
        batches = self.batches if self.shared else Share(self.batches, seed=seed)
        return replace(self, batches=batches, shared=False)

    def require_length(self) -> None:
        """Refuse batches to train on that do not say how many they are.

        Raises
        ------
        ConfigError
        """
        try:
            len(self.batches)
        except TypeError:  # a stream, a generator
            kind = type(getattr(self.batches, "batches", self.batches)).__name__
            raise ConfigError(
                f"training data must have a length, not be a {kind} without one; keep the batches "
                "in a list, or give their class a __len__"
            ) from None

    def try_out(
        self,
        model: nn.Module,
        batch: Any,
        teacher: nn.Module | None,
        distillation: Distillation | None,
    ) -> None:
        """Compute the loss of the first batch, so that what is wrong with its form shows early.

        Raises
        ------
        ConfigError
        """
        loss = BatchLoss(self.loss, teacher, distillation)
        with torch.no_grad(), on_batch(1, batch, "training"):
            loss(model, batch, device_of(model))

    def distillation(self) -> Distillation:
        """How a teacher enters the loss; where there are no targets, it is the loss."""
        return Distillation(weight=1.0 if self.needs_teacher else 0.5, loss=self.distillation_loss)


class Embedded(nn.Module):
    """A sentence encoder whose output is the embedding itself, [B, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """Encode what the model's own arguments hold."""
        return embedding_of(self.model(**inputs), inputs)


class _Labelled(Around):
    """Batches (tokens, labels) from (tokens, scored), made as they are needed."""

    def __init__(self, task: LanguageModelling) -> None:
        super().__init__(task.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(self.batches, 1):
            tokens, scored = _text(number, batch)
            yield tokens, torch.where(scored, tokens, IGNORED)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, C] and labels [B], or probabilities [B, C].

    Raises
    ------
    ValueError
        If labels are of another shape or not 0 to below C: torch leaves one of -100 out without a
        word.
    """
    wanted = logits.shape if labels.is_floating_point() else logits.shape[:1] + logits.shape[2:]
    if labels.shape != wanted:
        raise ValueError(
            f"labels must be {list(wanted)}, the class of every input or shares of all, "
            f"not {list(labels.shape)}"
        )
    if not labels.is_floating_point() and labels.numel():
        for extreme in (int(labels.min()), int(labels.max())):
            if not 0 <= extreme < logits.shape[-1]:
                raise ValueError(f"labels must be 0 to below {logits.shape[-1]}, not {extreme}")
    return nn.functional.cross_entropy(logits, labels)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Nats per token of logits [B, T, V] and labels [B, T]; those ``IGNORED`` do not count.

    Raises
    ------
    ValueError
        If the shapes do not fit, or no label counts.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits must be {[*labels.shape, 'vocabulary']}, not {[*logits.shape]}")
    if not bool((labels[:, 1:] != IGNORED).any()):
        raise ValueError("a token behind the first of its row must be scored, not none")
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def objective_of(task: Task) -> Objective:
    """Say how a model is trained on a task.

    Raises
    ------
    ConfigError
        If the task only judges.
    """
    _require_lessons(task)
    match task:
        case Classification():
            found = Objective(task.batches, label_loss)
        case LanguageModelling():
            found = Objective(_Labelled(task), next_token_loss)
        case Denoising():
            found = Objective(task.batches, _noise_loss, _noise_loss)
        case Embedding():
            found = Objective(task.batches, nn.functional.mse_loss, _cosine_distance, True)
    return replace(found, shared=task.shared)


def _require_lessons(task: Task) -> None:
    """Require a task that there is something to learn from."""
    if isinstance(task, Generation):
        raise ConfigError(
            "data must be something to learn from, not generation, which only judges; a diffusion "
            "model learns from py:signbook.diffusion:trajectories, or from noisy images"
        )


def _noise_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of two tensors of one shape; torch would broadcast one of them."""
    if predicted.shape != noise.shape:
        raise ValueError(f"noise must be {list(predicted.shape)}, not {list(noise.shape)}")
    return nn.functional.mse_loss(predicted, noise)


def _text(number: int, batch: Any) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] of a batch, and which of them are scored."""
    try:
        tokens, scored = pair(batch, "which tokens are scored")
        require(tokens, "tokens", ["rows", "tokens"], "integer")
        return tokens, require(scored, "scored", list(tokens.shape), "bool")
    except ConfigError as error:
        raise ConfigError(f"batch {number}, {shapes_of(batch)}: {error}") from error


def _cosine_distance(student: Any, teacher: Any) -> Tensor:
    """Mean of 1 - cosine between two batches of vectors [B, D]."""
    return 1 - nn.functional.cosine_similarity(student, teacher, dim=-1).mean()


def calibration_of(task: Task, count: int) -> list[tuple[Any, None]]:
    """The first ``count`` batches of a task, as (inputs, None).

    Padded rows of tokens become batches of their own, without the padding: it is no text, and a
    model need not know what to mask.

    Raises
    ------
    ConfigError
        If the task only judges, or the data cannot be read.
    """
    _require_lessons(task)
    found: list[tuple[Any, None]] = []
    for number, batch in enumerate(itertools.islice(each(task.batches), count), 1):
        with on_batch(number, batch):
            if isinstance(task, Embedding):
                found.append((batch, None))
                continue
            if isinstance(task, LanguageModelling):
                rows: Iterable[Any] = _unpadded(*_text(number, batch))
            else:
                rows = [cast("tuple[Any, Any]", batch)[0]]
            found += [(some, None) for some in rows]
    return found


def part_of(calibration: list[tuple[Any, None]], task: Task) -> list[tuple[Any, None]]:
    """This process's part of what :func:`calibration_of` gave to all alike.

    Raises
    ------
    ConfigError
        If it differs between processes, or there are more of them than batches.
    """
    if ranks() == 1 or task.shared:
        return calibration
    require_same("calibration data, which are shared out,", fingerprint(calibration))
    if len(calibration) < ranks():
        raise ConfigError(
            f"calibration data must have a batch for each of the {ranks()} processes, not "
            f"{len(calibration)} in all; raise --batches, or start fewer"
        )
    return calibration[rank() :: ranks()]


def _unpadded(tokens: Tensor, scored: Tensor) -> Iterator[Tensor]:
    places = torch.arange(tokens.shape[1], device=tokens.device)
    lengths = (places * scored).amax(dim=1) + 1
    if bool((lengths == tokens.shape[1]).all()):
        yield tokens
    else:
        yield from (row[None, :n] for row, n in zip(tokens, lengths.tolist(), strict=True))
