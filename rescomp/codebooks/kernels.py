"""The choice in C, several times as fast: ``source/``, compiled when it is first used."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from vq.native import kernels

__all__ = ["choose", "library"]

_SOURCE = Path(__file__).parent / "source"
_TYPES = {torch.float32: "float32", torch.float64: "float64"}


def library(like: Tensor) -> ctypes.CDLL | None:
    """Functions for tensors like one; None if there are none: torch does it then."""
    if like.device.type != "cpu" or like.dtype not in _TYPES:
        return None
    return kernels("choice", _SOURCE / "choice.c")


def choose(
    functions: ctypes.CDLL,
    book: Tensor,
    norms: Tensor,
    metric: Tensor,
    weight: Tensor,
    unit: Tensor,
    *,
    signed: bool,
    parity: bool,
    candidates: int,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Indices [O], negative [d, O] if signed, and values [d, O] of :class:`Choice`.

    ``norms`` [k] is what the metric makes of every codeword, with signs its diagonal.
    """
    d, outputs = weight.shape
    weight = weight if weight.stride(1) == 1 else weight.contiguous()
    book, metric = book.contiguous(), metric.contiguous()
    indices = torch.empty(outputs, dtype=torch.int64)
    negative = torch.empty(d if signed else 0, outputs, dtype=torch.bool)
    values = weight.new_empty(d, outputs)
    function = getattr(functions, f"signbook_choose_{_TYPES[weight.dtype]}")
    failed = function(
        *map(ctypes.c_int64, (d, len(book), outputs, signed, parity, candidates)),
        *map(_at, (book, norms, metric, weight)),
        ctypes.c_int64(weight.stride(0)),
        _at(unit),
        ctypes.c_int64(unit.stride(0) if len(unit) > 1 else 0),
        *map(_at, (indices, negative, values)),
    )
    if failed:
        raise MemoryError("there is no memory for the scores of a few outputs")
    return indices, negative if signed else None, values


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
