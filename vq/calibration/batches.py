"""Batches of calibration data, and how a model is called with them.

Batches are tensors of inputs, or tuples whose first item is the inputs and whose second, where a
loss is computed, the targets.
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
    "fingerprint",
    "to_device",
]

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


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

    empty = True
    for batch in batches:
        empty = False
        add(batch)
    _require_some(empty)
    return digest.hexdigest()


def _pairs(batches: Iterable[Batch]) -> Iterator[tuple[Any, Any]]:
    empty = True
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ConfigError("calibration batches must be (inputs, targets) to compute a loss")
        empty = False
        yield batch[0], batch[1]
    _require_some(empty)


def _inputs(batches: Iterable[Batch]) -> Iterator[Any]:
    empty = True
    for batch in batches:
        empty = False
        yield batch[0] if isinstance(batch, tuple | list) else batch
    _require_some(empty)


def _require_some(empty: bool) -> None:
    if empty:
        raise ConfigError("calibration data must hold at least one batch, not none")


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Run a model on a tensor, a tuple of arguments, or a dictionary of keyword arguments."""
    inputs = to_device(inputs, device_of(model))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def to_device(item: Any, device: torch.device) -> Any:
    """Move the tensors of a batch, in tuples and dictionaries too."""
    if isinstance(item, Tensor):
        return item.to(device)
    if isinstance(item, Mapping):
        return {key: to_device(value, device) for key, value in item.items()}
    if isinstance(item, tuple):
        return type(item)(to_device(value, device) for value in item)
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
