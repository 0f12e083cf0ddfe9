"""Batches of data, and how a model is called with them.

A batch is the inputs, or a tuple or list that holds inputs and targets. Inputs are a tensor, a
tuple or list of positional arguments, or a mapping of keyword arguments: loaders make lists of
tuples, so that both mean the same. A model whose one argument is a list gets it in a tuple.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError

__all__ = [
    "Batch",
    "as_it_was",
    "call_model",
    "device_of",
    "each",
    "fingerprint",
    "split",
    "tensors_of",
    "to_device",
]

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def split(batch: Batch) -> tuple[Any, Any]:
    """Inputs and targets of a batch; targets are None where it has none."""
    if isinstance(batch, tuple | list):
        return batch[0], batch[1] if len(batch) > 1 else None
    return batch, None


def each(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Iterate over calibration data.

    Raises
    ------
    ConfigError
        If there is no batch.
    """
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise ConfigError("calibration data must hold at least one batch, not none")


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
                raise ConfigError("calibration data must be finite, not NaN or infinity")
            digest.update(f"{data.dtype}{tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item):
                digest.update(str(key).encode())
                add(item[key])
        elif isinstance(item, tuple | list):
            for part in item:
                add(part)

    for batch in each(batches):
        add(batch)
    return digest.hexdigest()


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Run a model on the inputs of a batch, on its own device."""
    inputs = to_device(inputs, device_of(model))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def to_device(item: Any, device: torch.device) -> Any:
    """Move the tensors of a batch, in tuples, lists and mappings too."""
    if isinstance(item, Tensor):
        return item.to(device)
    if isinstance(item, Mapping):
        return {key: to_device(value, device) for key, value in item.items()}
    if isinstance(item, tuple | list):
        make = getattr(item, "_make", type(item))  # named tuples take their parts one by one
        return make(to_device(value, device) for value in item)
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
