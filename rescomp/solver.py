"""The scalar solver: columns are rounded in turn, and the free ones make up for what went wrong."""

import torch
from torch import Tensor

from rescomp.levels import ColumnGrids
from rescomp.methods import Correction
from rescomp.recursion import Recursion
from vq.errors import ConfigError

__all__ = ["solve_columns"]


def solve_columns(
    current: Tensor,
    original: Tensor,
    feedback: Tensor,
    cross: Tensor | None,
    grids: ColumnGrids,
    correction: Correction,
    *,
    leaf: int = 32,
    org_block: int = 128,
) -> Tensor:
    """Round every column and correct those after it.

    Parameters
    ----------
    current : [I, O]
        Transposed target; afterwards every column as it was before rounding.
    original : [I, O]
        Transposed original weight, which drift is measured from.
    feedback : [I, I] upper
        ``U`` with every row divided by its diagonal (:mod:`rescomp.factor`).
    cross : [I, I] strictly upper, or None
        ``P``; None where ``current`` holds the cross term already, or the correction has none.
    grids : ColumnGrids
    correction : Correction
    leaf : int
        Columns that are worked off one by one; matters to speed only.
    org_block : int
        Columns of a block in mode "org", whose results it decides.

    Returns
    -------
    [I, O] levels, code minus zero, as floating-point numbers

    Raises
    ------
    ConfigError
        If groups that are fitted on the way and blocks of mode "org" do not nest.
    """
    solver = _Solver(current, original, feedback, cross, grids, correction, leaf, org_block)
    solver.solve(0, len(current))
    return solver.levels


class _Solver(Recursion):
    def __init__(
        self,
        current: Tensor,
        original: Tensor,
        feedback: Tensor,
        cross: Tensor | None,
        grids: ColumnGrids,
        correction: Correction,
        leaf: int,
        org_block: int,
    ) -> None:
        count = len(current)
        self.group = min(grids.width, count) if grids.dynamic else 0
        self.org = min(org_block, count) if correction.mode == "org" else 0
        least, most = sorted((self.group, self.org))
        if least and most < count and most % least:
            raise ConfigError(
                f"dynamic groups must divide blocks of mode 'org', {self.org}, or be multiples, "
                f"not {self.group}; use static groups"
            )
        wholes = {self.group, self.org} - {0}  # ranges that are solved without looking beyond
        super().__init__(current, original, feedback, cross, correction, leaf, wholes)
        self.grids = grids
        self.levels = torch.empty_like(current)

    def begin(self, start: int, end: int) -> None:
        if self.is_one(self.group, start, end):
            self.grids.fit(self.current[start:end])

    def end(self, start: int, end: int) -> None:
        if self.is_one(self.org, start, end):
            self._settle(start, end)

    def solve_leaf(self, start: int, end: int) -> None:
        errors, levels = self.errors, self.levels
        drift = self.correction.drift
        for q in range(start, end):
            weight, done = self.current[q], slice(start, q)
            if q > start:
                weight.addmv_(errors[done].T, self.feedback[done, q], alpha=-1)
                if self.cross is not None:
                    weight.addmv_(self.shares[done].T, self.cross[done, q])
            scale = self.grids.round(q, weight, levels[q])
            if drift:
                kept = torch.lerp(weight, self.original[q], drift, out=errors[q])
            else:
                kept = weight
            torch.addcmul(kept, levels[q], scale, value=-1, out=errors[q])
            if self.cross is not None:
                self.share(q, weight)

    def _settle(self, start: int, end: int) -> None:
        """Let columns after a block of mode "org" see rounded weights."""
        for q in range(start, end):
            rounded = self.levels[q] * self.grids.scale_of(q)
            self.errors[q].add_(self.current[q] - rounded, alpha=self.correction.drift)
            if self.cross is not None:
                self.share(q, rounded)
