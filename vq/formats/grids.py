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
from vq.formats.integers import half_through

__all__ = [
    "Grid",
    "ends_of",
    "grouped",
    "levels_of",
    "on_grid",
    "range_grid",
    "spanning",
    "spread",
]


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
    scale, zero = spanning(*ends_of(matrix, g), g)
    if g.group and not bool(torch.isfinite(scale).all()):
        most = FP16_MAX * ((1 << g.b) - 1) / 2
        raise WeightError(
            f"layer {g.name!r}: weights must be at most {most:g} for the fp16 scales of "
            f"{g.method}, not {float(matrix.abs().max()):g}; keep the layer"
        )
    return Grid(scale, zero)


def grouped(matrix: Tensor, g: Geometry) -> Tensor:
    """Weights [O, I] by their groups, [O, groups of an output, width]; a last one ends in zeros."""
    if short := -g.I % g.group_width:
        matrix = torch.nn.functional.pad(matrix, (0, short))
    return matrix.reshape(g.O, -1, g.group_width)


def ends_of(matrix: Tensor, g: Geometry) -> tuple[Tensor, Tensor]:
    """Least and greatest weight of every group of ``matrix`` [O, I], [O, groups of an output].

    With zeros, 0 is in between.
    """
    low, high = grouped(matrix, g).aminmax(dim=2)
    return (low.clamp(max=0), high.clamp(min=0)) if g.zeros else (low, high)


def spanning(low: Tensor, high: Tensor, g: Geometry) -> tuple[Tensor, Tensor | None]:
    """Scales and zeros of grids from ``low`` to ``high``, as :func:`range_grid` tells.

    Scales have gradients, which pass their rounding as if nothing happened; they are infinite where
    fp16 cannot hold them.
    """
    levels = (1 << g.b) - 1
    peak = torch.maximum(high, -low)
    if not g.group:
        return torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak)), None
    scale = (high - low) / levels if g.zeros else peak / (levels / 2)
    silent = scale == 0
    scale = half_through(scale.clamp(min=FP16_MIN)).masked_fill(silent, 1.0)
    if not g.zeros:
        return scale, None
    zero = torch.round(-low.detach() / scale.detach()).clamp(0, levels)
    return scale, zero.to(torch.uint8)


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


def on_grid(integers: Tensor, grid: Grid, g: Geometry) -> Tensor:
    """Decoded weight, [O, I] float32, of codes minus zeros [O, I]; every product is exact."""
    return integers.float() * spread(grid.scale, g)
