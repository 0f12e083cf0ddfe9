"""The levels that weights may be rounded to, exactly as a container stores them.

Whatever chooses the codes computes with these numbers: fp16 scales and uint8 zeros of groups
(:mod:`vq.formats.grids`), or an fp32 scale per output of int8.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vq.container import Geometry
from vq.errors import ConfigError
from vq.formats.grids import Grid, grouped, levels_of, range_grid

__all__ = ["Clip", "fit_grid", "part_of"]

#: Weights tried at a time: the working memory stays in a core's own cache.
_STRIDE = 1 << 17


@dataclass(frozen=True)
class Clip:
    """Search for a narrower range per group: large weights saturate, small ones gain.

    The range is shrunk by every multiple of ``1 / steps`` up to ``shrink``, and the one with the
    least sum of ``|error| ** power`` over the group is taken.
    """

    shrink: float = 0.8
    steps: int = 100
    power: float = 2.4

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise ConfigError(f"clip shrink must be in (0, 1), not {self.shrink!r}")
        if self.steps < 1:
            raise ConfigError(f"clip steps must be positive, not {self.steps!r}")
        if not (math.isfinite(self.power) and self.power > 0):
            raise ConfigError(f"clip power must be positive, not {self.power!r}")


def part_of(g: Geometry, shape: tuple[int, int], group: int) -> Geometry:
    """Layer like ``g`` of another [O, I] and group; int8 has an output for its only group."""
    if not g.group:
        return replace(g, op="linear", shape=shape, scales=shape[0])
    return replace(g, op="linear", shape=shape, group=group)


@torch.no_grad()
def fit_grid(matrix: Tensor, g: Geometry, clip: Clip | None = None) -> Grid:
    """Grid for ``matrix`` [O, I] from the ranges of its groups.

    Parameters
    ----------
    matrix : [O, I]
        Rounded to float32 first.
    g : Geometry
        Of an int8, int4, int3 or int2 layer.
    clip : Clip, optional
        Without it, the grid is :func:`vq.formats.grids.range_grid`'s, or that of int8 layers.

    Returns
    -------
    Grid of [O, groups of an output] scales

    Raises
    ------
    WeightError
        If a scale exceeds fp16.
    """
    matrix = matrix.float()
    if clip is None:
        return range_grid(matrix, g)
    groups = grouped(matrix, g)  # 0 is a level of any grid
    _, count, width = groups.shape
    found = [
        _search(part, part_of(g, (len(part), 2 * count), 2), clip)
        for part in torch.split(groups, max(1, _STRIDE // (count * width)))
    ]
    scale = torch.cat([grid.scale for grid in found])
    zeros = [grid.zero for grid in found if grid.zero is not None]
    return Grid(scale, torch.cat(zeros) if zeros else None)


def _search(groups: Tensor, g: Geometry, clip: Clip) -> Grid:
    """Best grid of ``groups`` [o, count, width]; ``g`` has two inputs per group, its ends."""
    ends = torch.stack(groups.aminmax(dim=2), dim=2).flatten(1)
    best = torch.full(groups.shape[:2], math.inf, device=groups.device)
    work = torch.empty_like(groups)
    grid = range_grid(ends, g)
    scale, zero = grid.scale, grid.zero
    for step in range(round(clip.shrink * clip.steps)):
        tried = range_grid(ends * (1 - step / clip.steps), g)
        low, high = levels_of(g, None if tried.zero is None else tried.zero[:, :, None])
        wide = tried.scale[:, :, None]
        gap = torch.div(groups, wide, out=work).round_().clamp_(low, high).mul_(wide).sub_(groups)
        # The power, four times faster than pow; the logarithm of 0 ends as 0 again.
        error = gap.abs_().log_().mul_(clip.power).exp_().sum(dim=2)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, tried.scale, scale)
        if zero is not None and tried.zero is not None:
            zero = torch.where(better, tried.zero, zero)
    return Grid(scale, zero)
