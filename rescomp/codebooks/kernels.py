"""Choice and refit in C, several times as fast: ``source/``, compiled when they are first used."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from vq.native import kernels

__all__ = ["choose", "decode", "gather", "library"]

_SOURCE = Path(__file__).parent / "source"
_TYPES = {torch.float32: "float32", torch.float64: "float64"}


def library(like: Tensor) -> ctypes.CDLL | None:
    """Functions for tensors like one; None if there are none: torch does it then."""
    if like.device.type != "cpu" or like.dtype not in _TYPES:
        return None
    return kernels("codebooks", _SOURCE / "codebooks.c")


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


def decode(
    functions: ctypes.CDLL, book: Tensor, indices: Tensor, negative: Tensor | None, unit: Tensor
) -> Tensor:
    """Weights [I, O] of codewords [k, d] by indices [I / d, O], signs [I, O] and unit [O]."""
    (groups, outputs), d = indices.shape, book.shape[1]
    values = book.new_empty(groups * d, outputs)
    _codes(functions, "decode", d, book, indices, negative, unit, values)
    return values


def gather(
    functions: ctypes.CDLL,
    values: Tensor,
    indices: Tensor,
    negative: Tensor | None,
    unit: Tensor,
    k: int,
) -> Tensor:
    """Sums [k, d] of values [I, O], times sign and unit, by codeword: :func:`decode` transposed."""
    d = len(values) // len(indices)
    sums = values.new_zeros(k, d)
    _codes(functions, "gather", d, values, indices, negative, unit, sums)
    return sums


def _codes(
    functions: ctypes.CDLL,
    name: str,
    d: int,
    given: Tensor,
    indices: Tensor,
    negative: Tensor | None,
    unit: Tensor,
    out: Tensor,
) -> None:
    given, indices, unit = (x.contiguous() for x in (given, indices, unit))
    negative = None if negative is None else negative.contiguous()
    getattr(functions, f"signbook_{name}_{_TYPES[out.dtype]}")(
        *map(ctypes.c_int64, (d, *indices.shape)),
        *map(_at, (given, indices)),
        None if negative is None else _at(negative),
        *map(_at, (unit, out)),
    )


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
