"""Packed layers on a GPU, by Triton's programs (:mod:`vq.inference.programs`).

Triton comes with torch for CUDA, or with the extra ``gpu``. Its programs are compiled when they
are first used, for the device that is there.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vq.inference.tiles import Tiling

__all__ = ["MOST_TOKENS", "linear", "multiplies", "require", "rows", "serves", "sums"]

#: Tokens that are multiplied as weights are decoded; for more, the layer is decoded once, apart.
MOST_TOKENS = 16
#: Programs of a multiplication that keep a large device busy.
_PROGRAMS = 1024
#: Weights of an output that a program decodes at a time, and values that others take.
_TAKEN, _VALUES = 256, 1024


def serves(t: Tiling) -> bool:
    """Whether there are programs for a layer: its signs fit a word."""
    return t.d <= 32


def multiplies(t: Tiling) -> bool:
    """Whether a layer is multiplied as it is decoded: a codebook's along inputs.

    Sums of so many inputs stay in 32 bits: 2**17 * 127 * 128.
    """
    return serves(t) and t.k > 0 and not t.out and t.inputs <= 1 << 17


def require(device: torch.device) -> None:
    """Run a small multiplication, which fails as all of them would where something is missing."""
    t = Tiling(1, 8, 8, 1, 1, 0, 0, 0)
    tiles = torch.zeros(t.nbytes, dtype=torch.uint8, device=device)
    book = torch.ones(1, 8, dtype=torch.int8, device=device)
    scale = torch.ones(1, device=device)
    found = linear(torch.ones(1, 8, device=device), t, tiles, book, scale, None, None)
    if found.item() != 8:
        raise RuntimeError(f"a product of ones must be 8, not {found.item()}")


def linear(
    x: Tensor,
    t: Tiling,
    tiles: Tensor,
    book: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Multiply ``x`` [M, I] by a layer, with sums in fp32: [M, O] in the dtype of ``x``.

    Up to MOST_TOKENS tokens meet a codebook's integers as they are decoded. Otherwise the layer is
    decoded to weights in the dtype of ``x``, as a dense model has them.
    """
    if len(x) > MOST_TOKENS or not multiplies(t):
        every = torch.arange(t.outputs, device=x.device)
        own = None if bias is None else bias.to(x.dtype)
        return F.linear(x, _decode(t, tiles, book, scale, zeros, every, x.dtype), own)
    y = x.new_empty(len(x), t.outputs)
    if not len(x):
        return y
    partial = _products(x, t, tiles, book)
    _launch(
        "finish", (-(-y.numel() // _VALUES),),
        partial, scale, bias, y, len(partial), y.numel(), t.outputs,
        SCALES=_scales(t, scale), BIAS=bias is not None, TAKEN=_VALUES, enable_fp_fusion=True,
    )  # fmt: skip
    return y


def sums(whole: Tensor, t: Tiling, tiles: Tensor, book: Tensor) -> Tensor:
    """Exact sums of ``whole`` [M, I] int8 times the integers of a layer, [M, O] int64.

    The layer is one that :func:`multiplies` names.
    """
    return _products(whole, t, tiles, book).sum(0)


def rows(
    t: Tiling,
    tiles: Tensor,
    book: Tensor,
    scale: Tensor | None,
    zeros: Tensor | None,
    chosen: Tensor,
) -> Tensor:
    """Weights of some outputs, [n, I] float32; without a scale their integers or codes, int8."""
    kind = torch.int8 if scale is None else torch.float32
    return _decode(t, tiles, book, scale, zeros, chosen, kind)


def _products(x: Tensor, t: Tiling, tiles: Tensor, book: Tensor) -> Tensor:
    """Sums of parts of the columns, [parts, M, O], int32 or float32."""
    columns, wide = t.grid[1], 1 << (t.d - 1).bit_length()
    taken = max(4, _TAKEN // wide)
    together = 1 if len(x) == 1 else 16 if len(x) <= 16 else 64
    parts = -(-len(x) // together)
    steps = -(-columns // taken)
    span = -(-steps // min(steps, max(1, _PROGRAMS // (t.blocks * parts))))
    splits = -(-steps // span)
    kind = torch.int32 if x.dtype == torch.int8 else torch.float32
    out = torch.empty(splits, len(x), t.outputs, dtype=kind, device=x.device)
    _launch(
        "multiply", (t.blocks, splits, parts),
        x.contiguous(), tiles, book, out, len(x), t.inputs, t.outputs, columns,
        t.nbytes // t.blocks, span * taken,
        FORM=t.form, BITS=t.bits, SIGNS=t.signs, D=t.d, WIDE=wide, TAKEN=taken,
        ROWS=together, enable_fp_fusion=True,
    )  # fmt: skip
    return out


def _decode(
    t: Tiling,
    tiles: Tensor,
    book: Tensor,
    scale: Tensor | None,
    zeros: Tensor | None,
    chosen: Tensor,
    kind: torch.dtype,
) -> Tensor:
    """Some outputs of a layer, [n, I]: weights, or int8 without ``scale``."""
    out = torch.empty(len(chosen), t.inputs, dtype=kind, device=tiles.device)
    first, end = t.ranges[0]
    if out.numel():
        _launch(
            "decode", (len(chosen), -(-t.inputs // _VALUES)),
            tiles, book, scale, zeros, chosen.contiguous(), out, t.inputs, end - first,
            len(t.ranges), t.tiles(end - first), t.nbytes // t.blocks,
            FORM=t.form, BITS=t.bits, SIGNS=t.signs, D=t.d, BOOK=t.k > 0, OUT=bool(t.out),
            SCALES="" if scale is None else _scales(t, scale), ZEROS=zeros is not None,
            TAKEN=_VALUES, enable_fp_fusion=False,
        )  # fmt: skip
    return out


def _scales(t: Tiling, scale: Tensor) -> str:
    if t.group:
        return "groups"
    return {0: "none", 1: "one"}.get(scale.numel(), "each")


def _launch(program: str, grid: tuple[int, ...], first: Tensor, *values: Any, **known: Any) -> None:
    """Run a program on the device of its first value."""
    from vq.inference import programs  # Triton may not be there

    on: Any = torch.cuda.device_of
    with on(first):
        getattr(programs, program)[grid](first, *values, **known)
