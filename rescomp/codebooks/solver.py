"""The codebook solver: groups of columns take their codewords in turn, by the scalar recursion.

For a group ``G`` of ``d`` columns, before all that are still free, the error ``e`` of a row costs
``|e inv(U[G, G])|**2``, and moves the free columns by ``e inv(U[G, G]) U[G, R]``, with ``inv(H) =
U'U``: what :mod:`rescomp.methods` says of single columns, for ``d`` at once. With ``d`` 1 both are
the same.
"""

import torch
from torch import Tensor

from rescomp.codebooks.choice import Choice, Codewords
from rescomp.methods import Correction
from rescomp.recursion import Recursion

__all__ = ["group_cross_", "group_feedback", "solve_groups"]


def group_feedback(factor: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """What errors of groups move the columns behind them by, and what they cost.

    Parameters
    ----------
    factor : [n, n] upper
        ``U`` of :func:`rescomp.factor.inverse_factor`; n is a multiple of d.
    d : int

    Returns
    -------
    feedback : [n, n]
        Every group's rows of ``U`` times the inverse of their diagonal block, which becomes 1.
    metrics : [n / d, d, d]
    """
    n = len(factor)
    blocks = torch.stack([factor[at : at + d, at : at + d] for at in range(0, n, d)])
    eye = torch.eye(d, dtype=factor.dtype, device=factor.device).expand_as(blocks)
    inverse = torch.linalg.solve_triangular(blocks, eye, upper=True)
    feedback = torch.bmm(inverse, factor.view(n // d, d, n)).view(n, n)
    return feedback, inverse @ inverse.mT


def group_cross_(cross: Tensor, factor: Tensor, d: int) -> Tensor:
    """``P[G, R] = D[G, R] inv(H[R, R])`` for every group and the columns after it, in place.

    As :func:`rescomp.factor.cross_term_`, but that a group's own columns see none of each other.
    """
    inner = cross @ factor.T
    groups = torch.arange(len(factor), device=factor.device) // d
    inner.masked_fill_(groups[:, None] >= groups, 0)
    return torch.mm(inner, factor, out=cross)


def solve_groups(
    current: Tensor,
    original: Tensor,
    feedback: Tensor,
    metrics: Tensor,
    cross: Tensor | None,
    codewords: Codewords,
    unit: Tensor,
    correction: Correction,
    *,
    leaf: int = 32,
) -> list[Choice]:
    """Choose every group's codewords and correct the columns after it.

    Parameters
    ----------
    current : [I, O]
        Transposed target; afterwards every column as it was before its choice.
    original : [I, O]
    feedback, metrics : [I, I], [I / d, d, d]
        Of :func:`group_feedback`.
    cross : [I, I], or None
        Of :func:`group_cross_`.
    codewords : Codewords
    unit : [1] or [O]
    correction : Correction
        Its mode is "allw".
    leaf : int
        Columns that are worked off group by group; matters to speed only.

    Returns
    -------
    list of Choice
        For every group, in the order of the columns.
    """
    d = metrics.shape[-1]
    solver = _Solver(
        current, original, feedback, cross, correction, leaf=-(-leaf // d) * d, wholes=set()
    )
    solver.metrics, solver.codewords, solver.unit, solver.choices = metrics, codewords, unit, []
    solver.solve(0, len(current))
    return solver.choices


class _Solver(Recursion):
    metrics: Tensor
    codewords: Codewords
    unit: Tensor
    choices: list[Choice]

    def solve_leaf(self, start: int, end: int) -> None:
        d = self.metrics.shape[-1]
        drift = self.correction.drift
        for at in range(start, end, d):
            own = slice(at, at + d)
            if at > start:
                done = slice(start, at)
                weight = self.current[own]
                weight.addmm_(self.feedback[done, own].T, self.errors[done], alpha=-1)
                if self.cross is not None:
                    weight.addmm_(self.cross[done, own].T, self.shares[done])
            weight = self.current[own]
            choice = self.codewords.choose(weight, self.metrics[at // d], self.unit)
            self.choices.append(choice)
            torch.sub(weight, choice.values, out=self.errors[own])
            if drift:
                self.errors[own].add_(self.original[own] - weight, alpha=drift)
            if self.cross is not None:
                self.share(own, weight)
