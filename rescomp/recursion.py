"""Columns in turn, by halves: what is solved is passed on to all that is still free at once.

A weight is held transposed, [I, O], so that a column of ``W`` is a row in memory. Columns are
halved and halved again: the left half is solved, passed on to the right half by one matrix
product, then the right half is solved. Only leaves of a few columns, small enough for a core's
own cache, are worked off one by one. In exact arithmetic the result does not depend on how the
columns are cut.
"""

import torch
from torch import Tensor

from rescomp.methods import Correction

__all__ = ["Recursion"]


class Recursion:
    """Base of the solvers, which differ in how a leaf's columns are rounded.

    Parameters
    ----------
    current : [I, O]
        Transposed target; in the end every column as it was before rounding.
    original : [I, O]
        Transposed original weight, which drift is measured from.
    feedback : [I, I]
        What an error in a column, or a group of columns, moves those after it by.
    cross : [I, I], or None
        ``P``, strictly above the diagonal, or the groups' diagonal blocks.
    correction : Correction
    leaf : int
        Columns that are worked off one by one.
    wholes : set of int
        Sizes of ranges that :meth:`begin` and :meth:`end` are called for.
    """

    def __init__(
        self,
        current: Tensor,
        original: Tensor,
        feedback: Tensor,
        cross: Tensor | None,
        correction: Correction,
        leaf: int,
        wholes: set[int],
    ) -> None:
        self.current, self.original = current, original
        self.feedback, self.cross = feedback, cross
        self.correction = correction
        #: What a solved column passes on by ``feedback``, and by ``cross``.
        self.errors = torch.empty_like(current)
        self.shares = torch.empty_like(current if cross is not None else current[:0])
        self.leaf = min([leaf, *wholes])
        #: A range is cut at a multiple of the first of these that is smaller.
        self._units = sorted(wholes | {self.leaf}, reverse=True)

    def begin(self, start: int, end: int) -> None:
        """Prepare for a range before any of its columns is solved."""

    def solve_leaf(self, start: int, end: int) -> None:
        """Solve a range of few columns."""
        raise NotImplementedError

    def end(self, start: int, end: int) -> None:
        """Finish a range all of whose columns are solved."""

    def solve(self, start: int, end: int) -> None:
        """Solve columns ``start`` to ``end``, which have been corrected for all before them."""
        size = end - start
        self.begin(start, end)
        if size <= self.leaf:
            self.solve_leaf(start, end)
        else:
            unit = next(unit for unit in self._units if unit < size)
            middle = start + unit * (-(-size // unit) // 2)
            self.solve(start, middle)
            self.pass_on(start, middle, end)
            self.solve(middle, end)
        self.end(start, end)

    def pass_on(self, start: int, middle: int, end: int) -> None:
        """Correct columns ``middle`` to ``end`` for those from ``start`` to ``middle``."""
        free, done = self.current[middle:end], slice(start, middle)
        free.addmm_(self.feedback[done, middle:end].T, self.errors[done], alpha=-1)
        if self.cross is not None:
            free.addmm_(self.cross[done, middle:end].T, self.shares[done])

    def is_one(self, unit: int, start: int, end: int) -> bool:
        """Whether a range is one whole unit, perhaps the last, shorter one."""
        return unit > 0 and start % unit == 0 and end == min(start + unit, len(self.current))

    def share(self, columns: int | slice, weight: Tensor) -> None:
        """Note what columns pass on by ``cross``: their shares of asymmetry and of drift."""
        correction = self.correction
        share = torch.mul(weight, correction.asymmetry - correction.drift, out=self.shares[columns])
        if correction.drift:
            share.add_(self.original[columns], alpha=correction.drift)
