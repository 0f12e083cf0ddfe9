"""Compress and fine-tune by name: what a task means for training, and the files a run leaves."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vq
from signbook.evaluation import choose_device
from signbook.files import make_folder, write_json
from signbook.meters import embedding_of
from signbook.naming import resolve_data, resolve_model
from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling, Task
from vq.container import account
from vq.errors import ConfigError
from vq.learning.finetune import Rates
from vq.learning.objective import Distillation

__all__ = [
    "FILE_NAME",
    "IGNORED",
    "Objective",
    "compress_named",
    "finetune_named",
    "next_token_loss",
    "objective_of",
    "plan_named",
]

#: Name of the container in an output folder.
FILE_NAME = "model.vq.safetensors"
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
    """

    batches: Any
    loss: Callable[[Any, Any], Tensor]
    distillation_loss: Callable[[Any, Any], Tensor] | None = None
    needs_teacher: bool = False


class _Labelled:
    """Batches (tokens, labels) from (tokens, scored), made as they are needed.

    Training looks for samplers and generators at the loader, so its other attributes are here too.
    """

    def __init__(self, task: LanguageModelling) -> None:
        self._batches = task.batches

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet while this is being copied
            raise AttributeError(name)
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for tokens, scored in self._batches:
            yield tokens, torch.where(scored, tokens, IGNORED)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Nats per token of logits [B, T, V] and labels [B, T]; those ``IGNORED`` do not count."""
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def objective_of(task: Task) -> Objective:
    """Say how a model is trained on a task."""
    match task:
        case Classification():
            return Objective(task.batches, nn.functional.cross_entropy)
        case LanguageModelling():
            return Objective(_Labelled(task), next_token_loss)
        case Denoising():
            mse = nn.functional.mse_loss
            return Objective(task.batches, mse, mse)
        case Embedding():
            return Objective(task.batches, nn.functional.mse_loss, _cosine_distance, True)


def _cosine_distance(student: Any, teacher: Any) -> Tensor:
    """Mean of 1 - cosine between two batches of vectors [B, D]."""
    return 1 - nn.functional.cosine_similarity(student, teacher, dim=-1).mean()


def plan_named(
    model: str, recipe: Path, *, weights: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Predict a compression: the ``signbook.plan/1`` document."""
    planned = vq.plan(resolve_model(model, weights), vq.Recipe.from_yaml(recipe), seed=seed)
    return {
        "schema": "signbook.plan/1",
        "layers": [
            {
                "name": a.geometry.name,
                "method": a.geometry.method,
                "weights": a.geometry.weights,
                "axis": a.geometry.axis,
                "d": a.geometry.d,
                "k": a.geometry.k,
                "bytes": a.total_bytes,
                "bits_per_weight": a.bits_per_weight,
            }
            for a in planned.layers
        ],
        "skipped": [asdict(s) for s in planned.skipped],
        "bits_per_weight": planned.bits_per_weight if planned.layers else None,
        "file_bytes": planned.file_bytes,
        "kept_bytes": planned.kept_bytes,
        "seconds": planned.seconds,
        "memory_bytes": planned.memory_bytes,
    }


def compress_named(
    model: str,
    recipe: Path,
    out: Path,
    *,
    weights: Path | None = None,
    data: str | None = None,
    importance: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Cluster a named model and write its container: the ``signbook.compress/1`` document.

    ``data`` calibrates: batch norms are measured again on it, and ``importance`` ("inputs" or
    "gradients") weighs the errors of weights by it.
    """
    make_folder(out)
    network = resolve_model(model, weights)
    objective = None if data is None else objective_of(resolve_data(data))
    result = vq.compress_(
        network,
        vq.Recipe.from_yaml(recipe),
        calibration=None if objective is None else _calibration(objective),
        importance=importance,
        loss=nn.functional.cross_entropy if objective is None else objective.loss,
        seed=seed,
    )
    file = vq.save(network, out / FILE_NAME)
    return {
        "schema": "signbook.compress/1",
        "file": str(out / FILE_NAME),
        "file_bytes": file.file_bytes,
        "bits_per_weight": result.bits_per_weight,
        "layers": _layers(result),
        "kept": result.kept,
    }


def finetune_named(
    model: str,
    recipe: Path,
    data: str,
    out: Path,
    *,
    weights: Path | None = None,
    epochs: int = 10,
    rates: Rates | None = None,
    teacher: bool = False,
    fixed_signs: bool = False,
    amp: str | None = None,
    accumulate: int = 1,
    importance: str | None = None,
    seed: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Cluster, fine-tune and write: the ``signbook.finetune/1`` document.

    Checkpoints lie in ``out/checkpoints``; with ``resume`` an interrupted run goes on from the
    newest one. With ``tensorboard``, scalars lie in ``out/tensorboard``. With ``teacher``, the
    original model's outputs enter the loss; where a task has no targets, they are the loss.

    Raises
    ------
    ConfigError, RecipeError, ResumeError, TrainingError, OutputError
        As :func:`vq.compress_` and :func:`vq.finetune_` say.
    """
    make_folder(out)
    objective = objective_of(resolve_data(data))
    teaches = teacher or objective.needs_teacher
    if objective.needs_teacher and not teacher:
        raise ConfigError(f"data {data} hold no targets, so --teacher must be given")
    place = choose_device(device)
    network = resolve_model(model, weights).to(place)
    original = resolve_model(model, weights).to(place) if teaches else None
    if original is not None:
        original.load_state_dict(network.state_dict())
    result = vq.compress_(
        network,
        vq.Recipe.from_yaml(recipe),
        calibration=_calibration(objective),
        importance=importance,
        loss=objective.loss,
        seed=seed,
    )
    distillation = Distillation(
        weight=1.0 if objective.needs_teacher else 0.5, loss=objective.distillation_loss
    )
    taught, taught_by = network, original
    if original is not None and objective.needs_teacher:
        taught, taught_by = _Embedded(network), _Embedded(original)
    record = vq.finetune_(
        taught,
        objective.batches,
        epochs=epochs,
        rates=rates,
        loss=objective.loss,
        teacher=taught_by,
        distillation=distillation if teaches else None,
        fixed_signs=fixed_signs,
        amp=amp,
        accumulate=accumulate,
        checkpoint_dir=out / "checkpoints",
        resume=resume,
        tensorboard=out / "tensorboard" if tensorboard else None,
        seed=seed,
    )
    file = vq.save(network, out / FILE_NAME)
    document = {
        "schema": "signbook.finetune/1",
        "file": str(out / FILE_NAME),
        "file_bytes": file.file_bytes,
        "bits_per_weight": result.bits_per_weight,
        "layers": _layers(result),
        "run": record.to_json(),
    }
    write_json(out / "run.json", document)
    return document


def _calibration(objective: Objective) -> list[Any]:
    """The first batches of a pass over the data, the same ones for every use."""
    return list(itertools.islice(objective.batches, _CALIBRATION_BATCHES))


class _Embedded(nn.Module):
    """A sentence encoder whose output is the embedding itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        return embedding_of(self.model(**inputs), inputs)


def _layers(result: vq.CompressResult) -> list[dict[str, Any]]:
    accounts = account([layer.geometry for layer in result.layers])
    return [
        {
            "name": layer.geometry.name,
            "method": layer.geometry.method,
            "weights": layer.geometry.weights,
            "bits_per_weight": counted.bits_per_weight,
            "relative_error": layer.relative_error,
        }
        for layer, counted in zip(result.layers, accounts, strict=True)
    ]
