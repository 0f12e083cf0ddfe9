"""Rounding of one column after another to the levels of its groups."""

from typing import Any

import torch
from torch import Tensor

from vq.container import Geometry
from vq.formats.clip import Clip, fit_grid, part_of
from vq.formats.grids import Grid, levels_of

__all__ = ["ColumnGrids"]


class ColumnGrids:
    """Grids of a layer by column, [groups, O], so that a column's scales are contiguous.

    Parameters
    ----------
    g : Geometry
    grid : Grid or None
        None where groups are fitted on the way (:meth:`fit`).
    like : Tensor
        Gives dtype and device.
    order : list of int
        Original place of every column.
    clip : Clip, optional
        For groups that are fitted on the way.
    """

    def __init__(
        self, g: Geometry, grid: Grid | None, like: Tensor, order: list[int], clip: Clip | None
    ) -> None:
        self.width = g.group_width
        self._g, self._clip = g, clip
        self._fitted: list[Grid] = []
        self._groups = [column // self.width for column in order]
        self._scale: list[Tensor] = []
        self._low: list[Any] = []
        self._high: list[Any] = []
        self.dynamic = grid is None
        if grid is not None:
            for scale, zero in zip(*_columns(grid), strict=True):
                self._append(scale, zero, like)

    def _append(self, scale: Tensor, zero: Tensor | None, like: Tensor) -> None:
        low, high = levels_of(self._g, zero)
        self._scale.append(scale.to(like).contiguous())
        self._low.append(low if isinstance(low, int) else low.to(like).contiguous())
        self._high.append(high if isinstance(high, int) else high.to(like).contiguous())

    def fit(self, rows: Tensor) -> None:
        """Make the next group's grid from its columns as they are now, [width, O]."""
        grid = fit_grid(rows.T, part_of(self._g, (rows.shape[1], len(rows)), len(rows)), self._clip)
        self._fitted.append(grid)
        self._append(grid.scale[:, 0], None if grid.zero is None else grid.zero[:, 0], rows)

    def fitted(self) -> Grid:
        """All grids that :meth:`fit` made."""
        scale = torch.cat([grid.scale for grid in self._fitted], dim=1)
        zeros = [grid.zero for grid in self._fitted if grid.zero is not None]
        return Grid(scale, torch.cat(zeros, dim=1) if zeros else None)

    def round(self, column: int, weight: Tensor, out: Tensor) -> Tensor:
        """Write the nearest levels of ``weight`` [O] to ``out`` and return their scales [O]."""
        group = self._groups[column]
        scale = self._scale[group]
        torch.div(weight, scale, out=out).round_().clamp_(self._low[group], self._high[group])
        return scale

    def scale_of(self, column: int) -> Tensor:
        """Scales [O] of a column."""
        return self._scale[self._groups[column]]


def _columns(grid: Grid) -> tuple[list[Tensor], list[Tensor | None]]:
    scales = list(grid.scale.unbind(1))
    if grid.zero is None:
        return scales, [None] * len(scales)
    return scales, list(grid.zero.unbind(1))
