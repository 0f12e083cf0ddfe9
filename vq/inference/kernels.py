"""Multiplying by packed weights in C: one library for each instruction set, chosen at run time.

A library is compiled when it is first used (:mod:`vq.native`), for its instruction set and not for
this very processor. All give the same bits (:mod:`vq.inference.reference`).
"""

import ctypes
import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.container import ContainerError, Geometry, codec
from vq.errors import ConfigError, OutputError, SimulationError
from vq.inference.tiles import FORMS, Tiling, pack
from vq.native import compiled

__all__ = [
    "ISAS",
    "Kernels",
    "Operand",
    "instruction_set",
    "instruction_sets",
    "kernels",
    "kernels_for",
    "packed",
    "served_by",
]

_SOURCE = Path(__file__).parent / "source"
#: No fused additions, so that all sets of instructions give the same bits.
_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
#: Instructions stay in the order that was written: gcc's own order does not fit the registers.
_NARROW = ("-fno-schedule-insns",)
_WIDE = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
#: Instruction sets, each with what it adds, from the one that all have to the best of x86 and then
#: of AArch64; what the compiler is told of each. The bits of ``signbook_can`` are in this order.
ISAS = {
    "portable": (),
    "avx2": ("-mavx2",),
    "avx512": _WIDE,
    "vnni": (*_WIDE, "-mavx512vnni"),
    "vbmi": (*_WIDE, "-mavx512vnni", "-mavx512vbmi"),
    "neon": _NARROW,
    "dotprod": (*_NARROW, "-march=armv8.2-a+dotprod"),
}
_VARIABLE = "SIGNBOOK_ISA"
#: What is multiplied is this many digits of 8 bits; none where nothing is rounded.
_DIGITS = {"int8": 1, "int16": 2, "exact": 0}
#: Highest that a library packs; what is beyond, numpy does.
_MOST_BITS, _MOST_SIGNS = 8, 32

_AT, _NUM = ctypes.c_void_p, ctypes.c_int64


class Operand(NamedTuple):
    """A layer as kernels take it; all tensors are contiguous, on the CPU.

    Attributes
    ----------
    tiling : Tiling
    tiles : [tiling.nbytes] uint8
    book : [k, d] int8; [0, 1] of scalars
    scale : [0], [1] or [O] float32; with groups [blocks, groups of an output, 16] float16
    zeros : uint8 shaped like ``scale``, optional
    bias : [O] float32, optional
    """

    tiling: Tiling
    tiles: Tensor
    book: Tensor
    scale: Tensor
    zeros: Tensor | None
    bias: Tensor | None


class Kernels:
    """The library of an instruction set.

    Attributes
    ----------
    isa : str
    """

    def __init__(self, isa: str, library: ctypes.CDLL) -> None:
        self.isa = isa
        self._linear = library.signbook_linear
        self._linear.argtypes = [_AT, _NUM, _AT, _NUM, _NUM, _NUM]
        self._rows = library.signbook_rows
        self._rows.argtypes = [*[_AT] * 4, _NUM, _AT, _NUM]
        self._tuned = library.signbook_tuned
        self._tuned.argtypes = [_AT]

    def linear(self, layers: Sequence[Operand], x: Tensor, activations: str) -> list[Tensor]:
        """Multiply ``x`` [..., I] by layers: [..., O] float32 of each, all of one call.

        What they read is rounded once.

        Parameters
        ----------
        layers : sequence of Operand
            All with I inputs.
        x : float32, contiguous, on the CPU
        activations : "int8", "int16" or "exact"
        """
        found, places = [], []
        for own in layers:
            t, grouped = own.tiling, own.tiling.group
            y = torch.empty(*x.shape[:-1], t.outputs)
            found.append(y)
            places += [
                _shape(t)[1], own.tiles.data_ptr(), own.book.data_ptr(),
                0 if grouped else own.scale.data_ptr(), 0 if grouped else own.scale.numel(),
                own.scale.data_ptr() if grouped else 0,
                0 if own.zeros is None else own.zeros.data_ptr(),
                0 if own.bias is None else own.bias.data_ptr(), y.data_ptr(),
            ]  # fmt: skip
        failed = self._linear(
            (_NUM * len(places))(*places), len(found), x.data_ptr(), x.numel() // x.shape[-1],
            _DIGITS[activations], torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("there is no memory for the rounded activations of one call")
        return found

    def rows(self, t: Tiling, tiles: Tensor, book: Tensor, chosen: Tensor) -> Tensor:
        """Integers of some outputs, [n, I] int8; of scalars with groups their codes.

        ``chosen`` is [n] int64, all of them below the outputs that there are.
        """
        out = torch.empty(len(chosen), t.inputs, dtype=torch.int8)
        failed = self._rows(
            _shape(t)[0], tiles.data_ptr(), book.data_ptr(), chosen.data_ptr(), len(chosen),
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("there is no memory for 16 decoded outputs")
        return out

    def is_tuned(self, t: Tiling) -> bool:
        """Whether a layer has a path of its own, not only the portable one."""
        return bool(self._tuned(_shape(t)[0]))


@functools.cache
def _shape(t: Tiling) -> tuple[ctypes.Array[ctypes.c_int64], int]:
    """A layer's numbers for C, and where they lie."""
    numbers = (_NUM * (len(t) + 1))(*t, FORMS.index(t.form))
    return numbers, ctypes.addressof(numbers)


def kernels() -> Kernels | None:
    """The library of the best instruction set that this processor has, or that SIGNBOOK_ISA names.

    None if none can be built, which a warning says once: torch then does the same, slowly.

    Raises
    ------
    ConfigError
        If SIGNBOOK_ISA names none that this processor has.
    """
    return _kernels(os.environ.get(_VARIABLE, ""))


@functools.cache
def _kernels(wanted: str) -> Kernels | None:
    if wanted and wanted not in ISAS:
        raise ConfigError(
            f"{_VARIABLE} must be one of {', '.join(ISAS)}, not {wanted!r}; unset it to leave the "
            "choice to the processor"
        )
    portable = _portable()
    if portable is None:
        return None
    have = instruction_sets()
    if wanted and wanted not in have:
        raise ConfigError(
            f"{_VARIABLE} must be an instruction set of this processor ({', '.join(have)}), not "
            f"{wanted!r}; unset it to leave the choice to the processor"
        )
    isa = wanted or have[-1]
    try:
        return Kernels(isa, portable if isa == "portable" else _library(isa))
    except (SimulationError, OutputError) as error:
        _say(f"by instructions that all processors have, not by {isa}", error)
        return Kernels("portable", portable)


@functools.cache
def _portable() -> ctypes.CDLL | None:
    try:
        return _library("portable")
    except (SimulationError, OutputError) as error:
        _say("by torch, which decodes them at every call,", error)
        return None


def _library(isa: str) -> ctypes.CDLL:
    main = _SOURCE / f"{isa}.c"
    try:
        return compiled(f"packed-{isa}", main, *_FLAGS, *ISAS[isa], "-fopenmp")
    except SimulationError:  # a compiler without OpenMP: one thread
        return compiled(f"packed-{isa}", main, *_FLAGS, *ISAS[isa])


def _say(how: str, error: Exception) -> None:
    warnings.warn(
        f"packed weights are multiplied {how} in several times the time: {error}", stacklevel=4
    )


def instruction_sets() -> list[str]:
    """Names of all instruction sets that this processor has, the best one last; none in torch."""
    portable = _portable()
    can = 0 if portable is None else portable.signbook_can()
    return [isa for place, isa in enumerate(ISAS) if can >> place & 1]


def instruction_set() -> str:
    """Name of what multiplies packed weights on this machine's CPU: one of ISAS, or "torch"."""
    found = kernels()
    return "torch" if found is None else found.isa


def kernels_for(t: Tiling) -> Kernels | None:
    """The library that multiplies by a layer on the CPU, None if there is none that does."""
    return kernels() if t.bits <= _MOST_BITS else None


def served_by(t: Tiling) -> str:
    """What multiplies a layer on this machine's CPU: an instruction set, "portable" or "torch"."""
    found = kernels_for(t)
    if found is None:
        return "torch"
    return found.isa if found.is_tuned(t) else "portable"


def packed(g: Geometry, stream: NDArray[np.uint8]) -> Tensor:
    """Tiles of a layer, [bytes] uint8, of its stream in a container, [g.stream_bytes] uint8.

    Raises
    ------
    ContainerError
        If the stream is damaged.
    """
    t = Tiling.of(g)
    library = None if t.bits > _MOST_BITS or t.signs > _MOST_SIGNS else _portable()
    if library is None:
        return torch.from_numpy(pack(g, stream))
    codec.require_clean(g, stream)
    tiles = torch.empty(t.nbytes, dtype=torch.uint8)
    highest = library.signbook_pack(
        _shape(t)[0], _AT(stream.ctypes.data), _NUM(g.tile), _AT(tiles.data_ptr()),
        _NUM(torch.get_num_threads()),
    )  # fmt: skip
    if g.k and highest >= g.k:
        raise ContainerError(f"layer {g.name!r}: index must be below k = {g.k}, not {highest}")
    return tiles
