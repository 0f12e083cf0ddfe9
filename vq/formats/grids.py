"""Grids of the scalar formats: which few numbers the weights of a group may be.

A group of ``b`` bits has ``2**b`` levels, ``(code - zero) * scale``. Whoever chooses the codes, the
grid comes first; here it follows from the range of the weights, and rounding to the nearest level
(:class:`vq.formats.scalar_weights.ScalarWeight`) is the plainest choice of codes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vq.container import Geometry
from vq.container.constants import CODE_MAX, FP16_MAX, FP16_MIN
from vq.errors import WeightError

__all__ = ["Grid", "levels_of", "range_grid", "spread"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Levels of every group of a layer.

    Attributes
    ----------
    scale : [O, ceil(I / group)] float32
        Numbers that fp16 holds, finite and not 0; for int8 [O, 1], any.
    zero : [O, ceil(I / group)] uint8, or None
        Code of the weight 0; None where the layer stores no zeros and all are ``2**(b - 1)``.
    """

    scale: Tensor
    zero: Tensor | None


def range_grid(matrix: Tensor, g: Geometry) -> Grid:
    """Grid on which no weight of ``matrix`` [O, I] is further than half a level from one.

    Without zeros, ``scale = max|w| / ((2**b - 1) / 2)``: both ends of the range saturate by half a
    level. With zeros, the levels reach from the least weight to the greatest, 0 included, and 0
    is a level. Then the scale is rounded to fp16, at least its least number; that alone, and the
    rounding of the zero, can add to the error. A group of zeros has scale 1. Scales of int8 are
    ``max|w| / 127`` of an output, in fp32.

    Raises
    ------
    WeightError
        If a scale exceeds fp16.
    """
    if not g.group:
        peak = matrix.abs().amax(dim=1, keepdim=True)
        return Grid(torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak)), None)
    levels = (1 << g.b) - 1
    width = g.group_width
    count = g.groups // g.O
    padded = torch.nn.functional.pad(matrix, (0, count * width - g.I))  # the range includes 0
    groups = padded.reshape(g.O, count, width)
    if g.zeros:
        low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
        scale = (high - low) / levels
    else:
        low, high = groups.aminmax(dim=2)
        scale = torch.maximum(high, -low) / (levels / 2)
    silent = scale == 0
    scale = scale.clamp(min=FP16_MIN).half().float().masked_fill(silent, 1.0)
    if not bool(torch.isfinite(scale).all()):
        raise WeightError(
            f"layer {g.name!r}: weights must be at most {FP16_MAX * levels / 2:g} for the fp16 "
            f"scales of {g.method}, not {float(matrix.abs().max()):g}; keep the layer"
        )
    zero = torch.round(-low / scale).clamp(0, levels).to(torch.uint8) if g.zeros else None
    return Grid(scale, zero)


def levels_of(g: Geometry, zero: Tensor | None) -> tuple[Any, Any]:
    """Least and greatest level, code minus zero: ints, or float32 tensors shaped like ``zero``."""
    if not g.group:
        return -CODE_MAX, CODE_MAX
    if zero is None:
        half = 1 << (g.b - 1)
        return -half, half - 1
    return -zero.float(), ((1 << g.b) - 1) - zero.float()


def spread(groups: Tensor, g: Geometry) -> Tensor:
    """Give every weight what belongs to its group: [O, groups of an output] to [O, I]."""
    if groups.shape[1] == 1:
        return groups.expand(-1, g.I)
    return groups.repeat_interleave(g.group_width, dim=1)[:, : g.I]
