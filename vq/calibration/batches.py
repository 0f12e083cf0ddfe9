"""Batches of data, and how a model is called with them.

A batch is the inputs, or a tuple or list that holds inputs and targets. Inputs are a tensor, a
tuple or list of positional arguments, or a mapping of keyword arguments: loaders make lists of
tuples, so that both mean the same. A model whose one argument is a list gets it in a tuple.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.memory import is_out_of_memory
from vq.errors import ConfigError, SignbookError

__all__ = [
    "Batch",
    "BatchError",
    "as_it_was",
    "call_model",
    "device_of",
    "each",
    "feed",
    "fingerprint",
    "fingerprint_of_all",
    "on_batch",
    "over_tensors",
    "repeatable",
    "shapes_of",
    "split",
    "tensors_of",
    "to_device",
]

#: Characters that are shown of an error's text.
_REASON_MAX = 240

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


class BatchError(ConfigError):
    """What a batch must be; :func:`on_batch` says which one is not."""


def split(batch: Batch) -> tuple[Any, Any]:
    """Inputs and targets of a batch; targets are None where it has none."""
    if isinstance(batch, tuple | list):
        return batch[0], batch[1] if len(batch) > 1 else None
    return batch, None


def each(batches: Iterable[Batch], what: str = "calibration") -> Iterator[Batch]:
    """Iterate over data.

    Parameters
    ----------
    batches : iterable of batches
    what : str
        What the data are for, as errors say it.

    Raises
    ------
    ConfigError
        If there is no batch, one holds nothing, or the data themselves raise an error.
    """
    number = 0
    try:
        iterator = iter(batches)
    except TypeError:
        raise ConfigError(
            f"{what} data must be batches to iterate over, not {type(batches).__name__}"
        ) from None
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            break
        except Exception as error:  # datasets are the user's code
            if _is_own(error):
                raise
            raise ConfigError(
                f"{what} data must give batch {number + 1}, not raise {_reason(error)}"
            ) from error
        number += 1
        sizes = [tensor.numel() for tensor in tensors_of(batch)]
        if (sizes and not any(sizes)) or (isinstance(batch, tuple | list | Mapping) and not batch):
            raise ConfigError(f"{what} batch {number} must not be empty, and is {shapes_of(batch)}")
        yield batch
    if not number:
        once = "; they give their batches once: keep them in a list" if iterator is batches else ""
        raise ConfigError(f"{what} data must hold at least one batch, not none{once}")


def repeatable(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Batches that can be iterated over more than once; those of a generator are kept."""
    return list(each(batches)) if isinstance(batches, Iterator) else batches


@contextmanager
def on_batch(number: int, batch: Batch, what: str = "calibration") -> Iterator[None]:
    """Name the batch in an error of what is done with it.

    Parameters
    ----------
    number : int
        From 1.
    batch : Batch
    what : str
        What the data are for.

    Raises
    ------
    ConfigError
        For all that is not Signbook's own error, or memory that runs out.
    """
    try:
        yield
    except BatchError as error:
        raise ConfigError(f"{what} batch {number}, {shapes_of(batch)}, must be {error}") from None
    except Exception as error:  # models, losses and what batches hold are the user's
        if _is_own(error):
            raise
        raise ConfigError(
            f"model must accept {what} batch {number}, {shapes_of(batch)}, "
            f"but raises {_reason(error)}"
        ) from error


def feed(batches: Iterable[Batch], work: Callable[[Batch], object]) -> None:
    """Call ``work`` with every batch; its errors name the batch (:func:`on_batch`).

    Raises
    ------
    ConfigError
        As :func:`each` and :func:`on_batch`.
    """
    for number, batch in enumerate(each(batches), 1):
        with on_batch(number, batch):
            work(batch)


def shapes_of(item: Any) -> str:
    """What a batch holds, in few words: dtypes and shapes of tensors, kinds of all else."""
    if isinstance(item, Tensor):
        return f"{str(item.dtype).removeprefix('torch.')} {list(item.shape)}"
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{key}: {shapes_of(value)}" for key, value in item.items()) + "}"
    if isinstance(item, tuple | list):
        return "(" + ", ".join(map(shapes_of, item)) + ")"
    return type(item).__name__


def _is_own(error: Exception) -> bool:
    """Whether an error says by itself what is wrong."""
    return isinstance(error, SignbookError) or is_out_of_memory(error)


def _reason(error: Exception) -> str:
    """Kind of an error and the first line of its text; of a loader's worker, what that met."""
    first, *_, last = str(error).strip().splitlines() * 2 or ("", "")
    if "DataLoader worker" in first and last != first:
        return last
    if len(first) > _REASON_MAX:  # such as a list of all backends
        first = f"{first[:_REASON_MAX].rsplit(' ', 1)[0]} ..."
    return f"{type(error).__name__}: {first}"


def tensors_of(item: Any) -> Iterator[Tensor]:
    """Tensors of a batch or of arguments, in tuples, lists and mappings too."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Mapping | tuple | list):
        for part in item.values() if isinstance(item, Mapping) else item:
            yield from tensors_of(part)


def fingerprint(batches: Iterable[Batch]) -> str:
    """sha256 of all tensors of the calibration data, as 64 hexadecimal digits.

    Raises
    ------
    ConfigError
        If there is no batch, or a value is not finite.
    """
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            data = item.detach().cpu().contiguous()
            if data.is_floating_point() and not torch.isfinite(data).all():
                raise BatchError("finite, not NaN or infinity")
            digest.update(f"{data.dtype}{tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item):
                digest.update(str(key).encode())
                add(item[key])
        elif isinstance(item, tuple | list):
            for part in item:
                add(part)

    feed(batches, add)
    return digest.hexdigest()


def fingerprint_of_all(batches: Iterable[Batch]) -> str:
    """:func:`fingerprint` of the inputs of all processes' batches; one process's is its own.

    Raises
    ------
    ConfigError
        As :func:`fingerprint`, in every process.
    """
    with distributed.together():
        own = fingerprint(split(batch)[0] for batch in batches)
    found = distributed.gather(own)
    return own if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Run a model on the inputs of a batch, on its own device."""
    inputs = to_device(inputs, device_of(model))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def to_device(item: Any, device: torch.device) -> Any:
    """Move the tensors of a batch, in tuples, lists and mappings too."""
    return over_tensors(item, lambda tensor: tensor.to(device))


def over_tensors(item: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to the tensors of a batch, in tuples, lists and mappings too."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, Mapping):
        return {key: over_tensors(value, function) for key, value in item.items()}
    if isinstance(item, tuple | list):
        make = getattr(item, "_make", type(item))  # named tuples take their parts one by one
        return make(over_tensors(value, function) for value in item)
    return item


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore the training modes and gradient flags that a measurement changes."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
