"""What meters have in common, and what they require of outputs and labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError

__all__ = ["Meter", "pair", "require", "slices"]

_ROWS = 1024  # rows of logits or of similarities that are in work at a time


class Meter:
    """Sums over batches, for a model and perhaps the reference after it.

    Attributes
    ----------
    count : int
        Things scored so far: inputs, tokens, or values of noise.
    sums : list of float
        What the metric of each model adds up.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sums = [0.0, 0.0]

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Run the models on a batch.

        Raises
        ------
        ConfigError
            If the batch or an output is not what the task says.
        """
        raise NotImplementedError

    def metrics(self, place: int) -> dict[str, float]:
        """Metrics of the model at ``place``: 0 is the subject, 1 the reference."""
        raise NotImplementedError

    def comparison(self) -> dict[str, float]:
        """Metrics of the subject against the reference."""
        return {}

    def samples(self, place: int) -> list[Any] | None:
        """Images [H][W] to show of the model at ``place``, 0 to 255; None if it draws none."""
        return None

    def drift(self) -> dict[str, list[float]] | None:
        """How far the two models have parted at every step; None if they go none."""
        return None


def pair(batch: Any, second: str) -> tuple[Any, Tensor]:
    """Inputs, and the tensor ``second`` that goes with them."""
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        raise ConfigError(f"a batch must be a pair, inputs and {second}")
    return batch[0], batch[1]


def require(
    found: Any, what: str, shape: Sequence[int | str], kind: str, remedy: str = ""
) -> Tensor:
    """Require a tensor that has a shape and a kind of values.

    Parameters
    ----------
    found : object
    what : str
        Its name, in the plural.
    shape : sequence of int or str
        Sizes; of a named one, any does.
    kind : {"integer", "bool", "finite"}
        Finite values are of a floating-point dtype.
    remedy : str
        What to do about another shape or kind.

    Raises
    ------
    ConfigError
    """
    if not isinstance(found, Tensor):
        raise ConfigError(f"{what} must be a tensor, not {type(found).__name__}")
    given, remedy = list(found.shape), f"; {remedy}" if remedy else ""
    fits = [isinstance(want, str) or want == size for want, size in zip(shape, given, strict=False)]
    if len(given) != len(shape) or not all(fits):
        raise ConfigError(f"{what} must be [{', '.join(map(str, shape))}], not {given}{remedy}")
    if _kind(found) != kind:
        wanted = "floating point" if kind == "finite" else kind
        dtype = str(found.dtype).removeprefix("torch.")
        raise ConfigError(f"{what} must be {wanted}, not {dtype}{remedy}")
    if kind == "finite" and not torch.isfinite(found).all():
        raise ConfigError(f"{what} must be finite, not NaN or infinite")
    return found


def _kind(found: Tensor) -> str:
    if found.dtype == torch.bool:
        return "bool"
    if found.is_complex():
        return "complex"
    return "finite" if found.is_floating_point() else "integer"


def slices(count: int) -> Iterator[slice]:
    """Cut rows into parts that are in work at a time."""
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))
