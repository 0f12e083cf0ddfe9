"""What changes when several processes train one model: little, and all of it is here.

Without ``torch.distributed`` every function does what one process alone would do.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vq.errors import ConfigError, SignbookError

__all__ = [
    "average_",
    "average_norms_",
    "from_first_",
    "gather",
    "is_main",
    "local",
    "mean",
    "rank",
    "ranks",
    "require_same",
    "together",
    "unsynchronised",
    "wrap",
]


def ranks() -> int:
    """Number of processes that train together; 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


def is_main() -> bool:
    """Whether this process shows progress and writes files."""
    return rank() == 0


@contextmanager
def wrap(model: nn.Module) -> Iterator[nn.Module]:
    """Give the module to call in training: one that averages gradients over all processes.

    Buffers stay local: the indices are large and never differ, and the statistics of norms are
    averaged when they are kept (:func:`average_norms_`).
    """
    if ranks() == 1:
        yield model
        return
    with warnings.catch_warnings():
        # Its successor is newer than the oldest torch that we support.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        # Parts of a model that no loss reaches (a pooler, say) are common, and must not stop it.
        wrapped = DistributedDataParallel(
            model, broadcast_buffers=False, find_unused_parameters=True
        )
    yield wrapped


def unsynchronised(model: nn.Module) -> AbstractContextManager[Any]:
    """Context in which backward only adds to the gradients of this process."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def local(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that is here, with the same storage; else the tensor."""
    to_local = getattr(tensor, "to_local", None)
    found: Tensor = tensor if to_local is None else to_local()
    return found


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace floating tensors by their mean over all processes."""
    if ranks() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= ranks()


def average_norms_(model: nn.Module) -> None:
    """Average the running statistics of norms, which every process gathers on its own data."""
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    buffers = (buffer for norm in norms for buffer in norm.buffers(recurse=False))
    average_([buffer for buffer in buffers if torch.is_floating_point(buffer)])


def from_first_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by those of the first process."""
    if ranks() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def mean(value: Tensor) -> float:
    """Mean of a scalar over all processes; NaN or infinite for all if it is so for one."""
    value = value.detach().float().clone()
    average_([value])
    return float(value)


def gather(item: Any) -> list[Any]:
    """Collect an object from every process, in the order of their numbers."""
    if ranks() == 1:
        return [item]
    items: list[Any] = [None] * ranks()
    dist.all_gather_object(items, item)
    return items


def require_same(subject: str, item: Any) -> None:
    """Refuse to go on unless ``item`` is equal on all processes.

    Raises
    ------
    ConfigError
        On every process.
    """
    items = gather(item)
    if any(other != items[0] for other in items):
        given = ", ".join(str(other)[:16] for other in items)
        raise ConfigError(f"{subject} must be the same on all ranks, not {given}")


@contextmanager
def together() -> Iterator[None]:
    """Let an error of one process end the block on all, so that none waits for ever.

    Raises
    ------
    SignbookError
        What this process raised, or else the first that another did.
    """
    own: SignbookError | None = None
    try:
        yield
    except SignbookError as error:
        own = error
    found = [error for error in gather(own) if error is not None]
    if own is not None:
        raise own
    if found:
        raise found[0]
