"""Add up what a task measures, batch by batch; :mod:`signbook.evaluation` lists the metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling, Task
from vq.calibration.batches import call_model
from vq.errors import ConfigError

__all__ = ["Meter", "embedding_of", "meter_for"]

_ROWS = 1024  # rows of logits or of similarities that are in work at a time


class Meter:
    """Sums over batches, for a model and perhaps the reference after it.

    Attributes
    ----------
    count : int
        Things scored so far: inputs, tokens, or values of noise.
    sums : list of float
        What the metric of each model adds up.
    divergence : float
        Sum of KL(reference || model) in nats.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums = [0.0, 0.0]
        self.divergence = 0.0

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on a batch."""
        raise NotImplementedError

    def metrics(self, place: int) -> dict[str, float]:
        """Metrics of the model at ``place``: 0 is the subject, 1 the reference."""
        raise NotImplementedError

    def comparison(self) -> dict[str, float]:
        """Metrics of the subject against the reference."""
        return {}


class _WithLogits(Meter):
    def comparison(self) -> dict[str, float]:
        return {"logit_kl": self.divergence / self.count}


class _Classes(_WithLogits):
    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        inputs, labels = batch
        outputs = [_logits(_run(model, inputs)) for model in models]
        for place, logits in enumerate(outputs):
            if logits.ndim != 2 or len(logits) != len(labels):
                raise ConfigError(
                    f"logits must be [{len(labels)}, classes], not {list(logits.shape)}"
                )
            self.sums[place] += int((logits.argmax(1) == labels).sum())
        self.count += len(labels)
        self.divergence += _divergence(outputs)

    def metrics(self, place: int) -> dict[str, float]:
        return {"top1": self.sums[place] / self.count}


class _Tokens(_WithLogits):
    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        tokens, scored = batch
        chosen = scored[:, 1:]
        targets = tokens[:, 1:][chosen]
        outputs = [self._predictions(_logits(_run(m, tokens)), tokens, chosen) for m in models]
        for place, logits in enumerate(outputs):
            for rows in _slices(len(targets)):
                likelihood = logits[rows].float().log_softmax(-1)
                found = likelihood.gather(1, targets[rows, None])
                self.sums[place] -= float(found.double().sum())
        self.count += len(targets)
        self.divergence += _divergence(outputs)

    def _predictions(self, logits: Tensor, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Logits [N, V] of the scored tokens."""
        if logits.shape[:-1] != tokens.shape:
            want = [*tokens.shape, "vocabulary"]
            raise ConfigError(f"logits must be {want}, not {list(logits.shape)}")
        if int(tokens.max()) >= logits.shape[-1]:
            raise ConfigError(
                f"tokens must be below the model's {logits.shape[-1]}, not {int(tokens.max())}"
            )
        return logits[:, :-1][chosen]

    def metrics(self, place: int) -> dict[str, float]:
        nats = self.sums[place] / self.count
        return {"nats_per_token": nats, "perplexity": math.exp(nats) if nats < 700 else math.inf}


class _Noise(Meter):
    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        inputs, noise = batch
        for place, model in enumerate(models):
            predicted = _run(model, inputs)
            shape = list(predicted.shape) if isinstance(predicted, Tensor) else None
            if shape != list(noise.shape):
                raise ConfigError(f"predicted noise must be {list(noise.shape)}, not {shape}")
            self.sums[place] += float((predicted.double() - noise.double()).square().sum())
        self.count += noise.numel()

    def metrics(self, place: int) -> dict[str, float]:
        return {"eps_mse": self.sums[place] / self.count}


class _Vectors(Meter):
    def __init__(self, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.vectors: tuple[list[Tensor], list[Tensor]] = ([], [])

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        for place, model in enumerate(models):
            found = embedding_of(_run(model, batch), batch).float()
            self.vectors[place].append(nn.functional.normalize(found, dim=1).cpu())
        self.count += len(self.vectors[0][-1])

    def metrics(self, place: int) -> dict[str, float]:
        return {}

    def comparison(self) -> dict[str, float]:
        if not 1 <= self.neighbours < self.count:
            raise ConfigError(
                f"neighbours must be 1 to {self.count - 1}, one less than there are inputs, "
                f"not {self.neighbours}"
            )
        ours, theirs = (torch.cat(part) for part in self.vectors)
        if ours.shape != theirs.shape:
            raise ConfigError(f"embeddings must be {list(theirs.shape)}, not {list(ours.shape)}")
        shared = 0
        for rows in _slices(self.count):
            near = [self._nearest(vectors, rows) for vectors in (ours, theirs)]
            shared += int((near[0][:, :, None] == near[1][:, None, :]).sum())
        return {
            "embedding_cosine": float((ours.double() * theirs.double()).sum(1).mean()),
            "retrieval_agreement": shared / (self.count * self.neighbours),
        }

    def _nearest(self, vectors: Tensor, rows: slice) -> Tensor:
        similar = vectors[rows] @ vectors.T
        similar.diagonal(rows.start).fill_(-torch.inf)  # an input is not its own neighbour
        return similar.topk(self.neighbours, dim=1).indices


def meter_for(task: Task, *, compare: bool, neighbours: int = 1) -> Meter:
    """The meter of a task.

    Raises
    ------
    ConfigError
        If the task cannot be judged without a reference and there is none to compare with.
    """
    match task:
        case Classification():
            return _Classes()
        case LanguageModelling():
            return _Tokens()
        case Denoising():
            return _Noise()
        case Embedding() if compare:
            return _Vectors(neighbours)
        case Embedding():
            raise ConfigError(
                "embeddings must be compared with a reference, not judged alone; "
                "use --file with --reference or --weights"
            )
    raise ConfigError(f"task must be one of signbook.tasks, not {type(task).__name__}")


def _run(model: nn.Module, inputs: Any) -> Any:
    try:
        return call_model(model, inputs)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, ConfigError | torch.OutOfMemoryError):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"model must accept the batches of the data, but {reason}") from error


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ConfigError(f"model must give logits, not {type(found).__name__}")
    return found


def embedding_of(output: Any, inputs: Any) -> Tensor:
    """Vectors [B, D] of a model's output: itself, or the mean of its hidden states over tokens."""
    if hasattr(output, "last_hidden_state"):
        hidden: Tensor = output.last_hidden_state
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        weights = (hidden.new_ones(hidden.shape[:2]) if mask is None else mask)[..., None]
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"embeddings must be [inputs, dimensions], not {shape}")
    return output


def _divergence(outputs: Sequence[Tensor]) -> float:
    """Sum over rows of KL(reference || model) in nats, from logits [N, classes] of both."""
    if len(outputs) < 2:
        return 0.0
    model, reference = outputs
    if reference.shape != model.shape:
        raise ConfigError(
            f"logits must be {list(reference.shape)} as the reference's, not {list(model.shape)}"
        )
    total = 0.0
    for rows in _slices(len(model)):
        p, q = (logits[rows].double().log_softmax(-1) for logits in (reference, model))
        total += float((p.exp() * (p - q)).sum())
    return total


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))
