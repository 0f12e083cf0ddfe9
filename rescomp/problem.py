"""A layer in the solver's layout, solved with as much damping as it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rescomp.factor import cross_term_, inverse_factor, transposed_times
from rescomp.levels import ColumnGrids
from rescomp.methods import Correction
from rescomp.settings import DAMPING_MAX, Settings
from rescomp.solver import solve_columns
from vq.calibration.statistics import Statistics, is_finite
from vq.container import Geometry
from vq.errors import ConfigError
from vq.formats.clip import fit_grid
from vq.formats.grids import Grid

__all__ = ["Solution", "more_damping", "solve"]

Found = TypeVar("Found")

#: Least damping that is tried after none.
_DAMPING_MIN = 1e-4


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found.

    Attributes
    ----------
    integers : [O, I] int8
        Codes minus zeros.
    grid : Grid
    damping : float
        What it took, in units of the mean diagonal.
    dead : int
        Inputs that are always 0.
    """

    integers: Tensor
    grid: Grid
    damping: float
    dead: int


def solve(
    weight: Tensor, g: Geometry, correction: Correction, statistics: Statistics, settings: Settings
) -> Solution:
    """Run the solver, with more damping as long as its result is not finite.

    Raises
    ------
    ConfigError
        If no damping up to the mean diagonal suffices.
    """
    problem = _Problem.of(weight, g, correction, statistics, settings)
    found, damping = more_damping(problem.solve, settings.damping, g.name)
    return Solution(*found, damping, problem.dead)


def more_damping(
    solve: Callable[[float], Found | None], damping: float, layer: str
) -> tuple[Found, float]:
    """Call ``solve`` with ``damping``, and with more as long as it finds nothing finite.

    Returns
    -------
    What it found, and the damping that it took.

    Raises
    ------
    ConfigError
        If no damping up to the mean diagonal suffices.
    """
    while (found := solve(damping)) is None:
        damping = max(10 * damping, _DAMPING_MIN)
        if damping > DAMPING_MAX:
            raise ConfigError(
                f"layer {layer!r}: hessian must be positive semi-definite, and was singular with "
                f"its mean diagonal added {DAMPING_MAX:g} times; gather it again"
            )
    return found, damping


@dataclass(frozen=True, eq=False)
class _Problem:
    """A layer with dead inputs at rest, and the order of solving.

    Attributes
    ----------
    original : [I, O]
        Columns as rows, in the order of solving; dead ones are 0.
    hessian, cross : [I, I]
        In their own order.
    grid : Grid or None
        None where groups are fitted on the way.
    order : [I] int64
        Original place of every column.
    dead : int
    """

    g: Geometry
    correction: Correction
    settings: Settings
    original: Tensor
    hessian: Tensor
    cross: Tensor | None
    grid: Grid | None
    order: Tensor
    dead: int

    @classmethod
    def of(
        cls,
        weight: Tensor,
        g: Geometry,
        correction: Correction,
        statistics: Statistics,
        settings: Settings,
    ) -> "_Problem":
        def local(matrix: Tensor) -> Tensor:
            return matrix.to(weight.device, settings.dtype)

        hessian = local(statistics.hessian)
        cross = (
            local(statistics.cross) if correction.cross and statistics.cross is not None else None
        )
        energy = hessian.diagonal()
        dead = energy == 0
        original = local(weight).T.contiguous()
        if bool(dead.any()):
            original = original.masked_fill(dead[:, None], 0)
            hessian = hessian.clone()
            hessian.diagonal()[dead] = energy[~dead].mean() if bool((~dead).any()) else 1.0
        grid = None if settings.dynamic_groups else fit_grid(original.T, g, settings.clip)
        order = torch.arange(g.I, device=weight.device)
        if settings.activation_order:
            order = torch.argsort(energy, descending=True, stable=True)
            original = original[order]
        return cls(g, correction, settings, original, hessian, cross, grid, order, int(dead.sum()))

    def solve(self, damping: float) -> tuple[Tensor, Grid] | None:
        """Integers [O, I] int8 and their grid; None if more damping is needed."""
        factor = inverse_factor(self.hessian, damping, self.order)
        if factor is None:
            return None
        correction, settings = self.correction, self.settings
        current, loop_cross = self._target(factor)
        factor.div_(factor.diagonal().clone()[:, None])
        grids = ColumnGrids(self.g, self.grid, current, self.order.tolist(), settings.clip)
        levels = solve_columns(
            current,
            self.original,
            factor,
            loop_cross,
            grids,
            correction,
            leaf=settings.leaf,
            org_block=settings.org_block,
        )
        if not is_finite(current):
            return None
        integers = torch.empty_like(levels, dtype=torch.int8)
        integers[self.order] = levels.to(torch.int8)
        return integers.T.contiguous(), self.grid or grids.fitted()

    def _target(self, factor: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the columns start from, and the cross term that is left for the solver."""
        correction, target = self.correction, self.original.clone()
        if self.cross is None:
            return target, None
        cross = self.cross.index_select(0, self.order).index_select(1, self.order)
        if correction.exact:
            shift = factor @ (cross.T @ self.original)
            target.add_(transposed_times(factor, shift), alpha=correction.exact)
        if not (correction.asymmetry or correction.drift):
            return target, None
        cross_term_(cross, factor)
        if correction.asymmetry != correction.drift or self.grid is None:
            return target, cross
        # Both shares make drift * W P, whatever is rounded: one product, now. Groups that are
        # fitted on the way see a column as it is in its turn, so theirs is added in turn, too.
        return target.add_(transposed_times(cross, self.original), alpha=correction.drift), None
