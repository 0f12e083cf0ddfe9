"""Memory that runs out, whoever says so, as one error that names what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vq.errors import ConfigError

__all__ = ["enough_memory", "is_out_of_memory"]

#: What torch and its libraries say where they raise no type of their own.
_SIGNS = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Refuse a calibration that does not fit.

    Raises
    ------
    ConfigError
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            "calibration must fit into memory, but it ran out; lower the rows of a batch or their "
            "length first, then the number of batches, or keep hidden states on the CPU (offload)"
        ) from error
