"""Operators of torch on packed weights: ``signbook::packed_linear`` and ``signbook::packed_rows``.

Both take a layer as tensors and whole numbers, so that ``torch.compile`` and ``torch.export`` see
all there is. The CPU has kernels, GPUs have Triton's; wherever there is none, torch does the same,
bit for bit where activations are rounded, on a layer that it decodes at every call.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vq.errors import ConfigError
from vq.inference import gpu
from vq.inference.kernels import Operand, kernels_for
from vq.inference.reference import ACTIVATIONS, DIGIT, HIGHEST
from vq.inference.tiles import ROWS, Tiling, from_tiles

__all__ = ["packed_linear", "packed_rows"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_LIBRARY: Any = torch.library.Library("signbook", "FRAGMENT")  # type: ignore[no-untyped-call]
_LAYER = "Tensor tiles, Tensor codebook, Tensor scale, Tensor? zeros"
_LIBRARY.define(
    f"packed_linear(Tensor x, {_LAYER}, Tensor? bias, int[] tiling, str activations) -> Tensor"
)
_LIBRARY.define(f"packed_rows(Tensor rows, {_LAYER}, int[] tiling) -> Tensor")

packed_rows = torch.ops.signbook.packed_rows


def packed_linear(
    x: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    tiling: Sequence[int],
    activations: str,
) -> Tensor:
    """Call the operator, or, where nothing but Python would see the difference, what it calls.

    Torch takes longer to find an operator in Python than kernels to multiply by a small layer.
    """
    direct = x.is_cpu and not is_watched(x)
    run = _linear if direct else torch.ops.signbook.packed_linear
    found: Tensor = run(x, tiles, codebook, scale, zeros, bias, tiling, activations)
    return found


def is_watched(x: Tensor) -> bool:
    """Whether something must see operators called: a compiler, a mode, a transform, a subclass."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _linear(
    x: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    tiling: Sequence[int],
    activations: str,
) -> Tensor:
    """Multiply ``x`` [..., I] by a packed layer and add a bias: [..., O] in the dtype of ``x``.

    Parameters
    ----------
    x : float32, bfloat16 or float16
    tiles, codebook, scale, zeros
        As in :meth:`vq.inference.kernels.Kernels.linear`.
    bias : [O], optional
    tiling : fields of a Tiling
    activations : "int8", "int16" or "exact"
        How they are rounded for each token (:mod:`vq.inference.reference`).

    Raises
    ------
    ConfigError
        If ``x`` has another width or dtype, or ``activations`` is none of the three.
    """
    t = Tiling(*tiling)
    _check(x, tiles, t, activations)
    plain = x.float().contiguous()
    own = None if bias is None else bias.float().contiguous()
    library = kernels_for(t) if x.is_cpu else None
    if library is not None:
        layer = Operand(t, tiles, codebook, scale, zeros, own)
        (y,) = library.linear([layer], plain, activations)
    else:
        _has_programs(t, tiles)
        flat = plain.reshape(-1, t.inputs)
        y = _slow_linear(flat, t, tiles, codebook, scale, zeros, own, activations)
        y = y.reshape(*x.shape[:-1], t.outputs)
    return y.to(x.dtype)


def _check(x: Tensor, tiles: Tensor, t: Tiling, activations: str) -> None:
    if x.dtype not in _DTYPES:
        raise ConfigError(
            f"inputs of a packed layer must be float32, bfloat16 or float16, not {x.dtype}; cast "
            "them, or load the file without packed=True"
        )
    if x.ndim == 0 or x.shape[-1] != t.inputs:
        raise ConfigError(
            f"inputs of a packed layer must have {t.inputs} values, not shape {tuple(x.shape)}"
        )
    if activations not in ACTIVATIONS:
        raise ConfigError(
            f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}"
        )
    if x.device != tiles.device:
        raise ConfigError(
            f"inputs of a packed layer must be on its device, {tiles.device}, not on {x.device}; "
            "move them, or the model"
        )


def _has_programs(t: Tiling, tiles: Tensor) -> bool:
    """Whether a layer's device has programs of Triton for it; a warning says where it has not."""
    if tiles.device.type == "cpu":
        return False
    if not gpu.serves(t):
        _warn("with sub-vectors of more than 32", tiles.device.type, "")
        return False
    return _runs_programs(tiles.device)


@functools.cache
def _runs_programs(device: torch.device) -> bool:
    why = ""
    if device.type == "cuda":
        try:
            gpu.require(device)
            return True
        except Exception as error:  # of Triton, of what it compiles by, or of the driver
            why = f" (Triton, of the extra gpu, fails: {error!r})"
    _warn("", device.type, why)
    return False


@functools.cache
def _warn(which: str, device: str, why: str) -> None:
    warnings.warn(
        f"packed layers {which + ' ' * bool(which)}have no kernels on {device}{why}: they are "
        "decoded at every call, in many times the time; keep the model on the CPU, or load it "
        "without packed=True",
        stacklevel=5,
    )


def _gpu_linear(
    x: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    tiling: Sequence[int],
    activations: str,
) -> Tensor:
    """The same on a GPU, in the dtype of ``x`` where activations are exact."""
    t = Tiling(*tiling)
    _check(x, tiles, t, activations)
    if activations != "exact" or not _has_programs(t, tiles):
        return _linear(x, tiles, codebook, scale, zeros, bias, tiling, activations)
    flat = x.reshape(-1, t.inputs)
    y = gpu.linear(flat, t, tiles, codebook, scale, zeros, bias)
    return y.reshape(*x.shape[:-1], t.outputs)


def _fake_linear(
    x: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    tiling: Sequence[int],
    activations: str,
) -> Tensor:
    t = Tiling(*tiling)
    _check(x, tiles, t, activations)
    return x.new_empty(*x.shape[:-1], t.outputs)


def _rows(
    rows: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    tiling: Sequence[int],
) -> Tensor:
    """Decode some outputs of a packed layer, [..., I] float32 for ``rows`` of integers [...].

    Raises
    ------
    IndexError
        If there is no such output, as torch's own embedding does.
    """
    t = Tiling(*tiling)
    chosen = rows.reshape(-1).long()
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < t.outputs:
        raise IndexError(f"rows of a packed layer must be from 0 to {t.outputs - 1}")
    if _has_programs(t, tiles):
        found = gpu.rows(t, tiles, codebook, scale, zeros, chosen)
        return found.reshape(*rows.shape, t.inputs)
    integers = _integers(t, tiles, codebook, chosen)
    if t.group:
        width = min(t.group, t.inputs)
        of_groups = _of_groups(scale, chosen).float()
        zero = 1 << (t.bits - 1) if zeros is None else _spread(_of_groups(zeros, chosen), width, t)
        weights = (integers - zero).float() * _spread(of_groups, width, t)
    else:
        weights = integers.float()
        if len(scale):
            weights = weights * (scale if len(scale) == 1 else scale[chosen][:, None])
    return weights.reshape(*rows.shape, t.inputs)


def _fake_rows(
    rows: Tensor,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    tiling: Sequence[int],
) -> Tensor:
    return tiles.new_empty(*rows.shape, Tiling(*tiling).inputs, dtype=torch.float32)


def _integers(t: Tiling, tiles: Tensor, codebook: Tensor, chosen: Tensor) -> Tensor:
    """Integers of some outputs, [n, I] int8 on the device of ``tiles``; with groups their codes."""
    if _has_programs(t, tiles):
        return gpu.rows(t, tiles, codebook, None, None, chosen)
    library = kernels_for(t)
    if library is not None:
        found = library.rows(t, tiles.cpu(), codebook.cpu(), chosen.cpu().contiguous())
        return found.to(tiles.device)
    grid, signs = (
        None if part is None else torch.from_numpy(part)
        for part in from_tiles(t, tiles.cpu().numpy())
    )
    assert grid is not None
    lines = torch.div(chosen.cpu(), t.d, rounding_mode="floor") if t.out else chosen.cpu()
    codes = grid[lines]
    if not t.k:
        return codes.view(torch.int8).to(tiles.device)
    values = codebook.cpu()[codes.int()]  # [n, columns, d]
    if signs is not None:
        negative = signs[lines]
        if t.signs < t.d:
            last = negative.sum(-1, keepdim=True) % 2 == 1
            negative = torch.cat([negative, last], -1)
        values = torch.where(negative, -values, values)
    if t.out:
        along = (chosen.cpu() % t.d)[:, None, None].expand(-1, values.shape[1], 1)
        return values.gather(2, along)[..., 0].to(tiles.device)
    return values.reshape(len(chosen), -1)[:, : t.inputs].to(tiles.device)


def _of_groups(groups: Tensor, chosen: Tensor) -> Tensor:
    """Values of groups [blocks, groups of an output, 16] of some outputs, [n, groups]."""
    return groups[torch.div(chosen, ROWS, rounding_mode="floor"), :, chosen % ROWS]


def _spread(of_groups: Tensor, width: int, t: Tiling) -> Tensor:
    return of_groups.repeat_interleave(width, dim=1)[:, : t.inputs]


def _slow_linear(
    x: Tensor,
    t: Tiling,
    tiles: Tensor,
    codebook: Tensor,
    scale: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    activations: str,
) -> Tensor:
    """What kernels compute; sums of integers are exact in float64."""
    every = torch.arange(t.outputs, device=x.device)
    if activations == "exact":
        y = x @ _rows(every, tiles, codebook, scale, zeros, list(t)).T
        return y if bias is None else y + bias
    peak = x.abs().amax(1, keepdim=True)
    finite = peak.isfinite()
    most = torch.full_like(peak, HIGHEST[activations])  # of a number, torch divides by reciprocals
    factor = (most / peak.masked_fill(~finite, 0)).clamp(max=2.0**126)
    whole = torch.round(x.masked_fill(~finite, 0) * factor)
    step = (1 / factor).masked_fill(~finite, float("nan"))
    if t.group:
        integers = _integers(t, tiles, codebook, every)
        width = min(t.group, t.inputs)
        zero = 1 << (t.bits - 1)
        weights = integers.short() - (
            zero if zeros is None else _spread(_of_groups(zeros, every), width, t)
        )
        y = x.new_zeros(len(x), t.outputs)
        for at, own in enumerate(_of_groups(scale, every).float().T):
            part = slice(at * width, (at + 1) * width)
            y = y + (whole[:, part].double() @ weights[:, part].double().T).float() * own
        y = y * step
    else:
        y = _sums(whole, t, tiles, codebook, activations).float() * step
        if len(scale):
            y = y * scale
    return y if bias is None else y + bias


def _sums(whole: Tensor, t: Tiling, tiles: Tensor, codebook: Tensor, activations: str) -> Tensor:
    """Exact sums of whole numbers [M, I] times the integers of a layer, [M, O] float64 or int64."""
    if not (_has_programs(t, tiles) and gpu.multiplies(t)):
        every = torch.arange(t.outputs, device=whole.device)
        return whole.double() @ _integers(t, tiles, codebook, every).double().T
    if activations == "int8":
        return gpu.sums(whole.to(torch.int8), t, tiles, codebook)
    high = torch.round(whole / DIGIT)
    digits = torch.cat([high, whole - DIGIT * high]).to(torch.int8)
    first, second = gpu.sums(digits, t, tiles, codebook).chunk(2)
    return DIGIT * first + second


for _name, _function, _fake in (
    ("packed_linear", _linear, _fake_linear),
    ("packed_rows", _rows, _fake_rows),
):
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"signbook::{_name}", _fake, lib=_LIBRARY)
_LIBRARY.impl("packed_linear", _gpu_linear, "CUDA")
