"""What is refitted when all choices are made: codebook, scales, choices again, by the outputs.

The objective is ``tr((W - Q) H (W - Q)')`` for a target ``W`` and the weight ``Q`` that the codes
stand for: least squares in the codebook, in the scales, and in any one group of columns.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rescomp.codebooks import kernels
from rescomp.codebooks.choice import Codewords, cost_of
from rescomp.methods import Correction
from rescomp.recursion import Recursion

__all__ = ["Fit", "objective", "refit_book", "refit_unit", "swept"]

#: Steps of conjugate gradients at most; fewer once the residual is this share of the first. What
#: is left of the objective then, sweeps move by chance (docs/log.md).
_STEPS, _SETTLED = 30, 1e-2


@dataclass(frozen=True, eq=False)
class Fit:
    """A layer and what stands for it, transposed.

    Attributes
    ----------
    target : [I, O]
    hessian : [I, I]
    codewords : Codewords
    unit : [O]
    indices : [I / d, O] int64
    negative : [I, O] bool, or None
    """

    target: Tensor
    hessian: Tensor
    codewords: Codewords
    unit: Tensor
    indices: Tensor
    negative: Tensor | None

    def decode(self, book: Tensor | None = None) -> Tensor:
        """Weight [I, O], of another codebook if one is given."""
        book = self.codewords.book if book is None else book
        if functions := kernels.library(book):
            return kernels.decode(functions, book, self.indices, self.negative, self.unit)
        values = book[self.indices].permute(0, 2, 1).reshape(self.target.shape)
        if self.negative is not None:
            values = torch.where(self.negative, -values, values)
        return values * self.unit

    def gather(self, values: Tensor) -> Tensor:
        """Sum [I, O] over where each number of the codebook stands, with its sign and scale."""
        book = self.codewords.book
        if functions := kernels.library(book):
            return kernels.gather(
                functions, values, self.indices, self.negative, self.unit, len(book)
            )
        scaled = values * self.unit
        if self.negative is not None:
            scaled = torch.where(self.negative, -scaled, scaled)
        rows = scaled.view(-1, book.shape[1], scaled.shape[1]).permute(0, 2, 1)
        return torch.zeros_like(book).index_add_(
            0, self.indices.reshape(-1), rows.reshape(-1, book.shape[1])
        )

    @cached_property
    def pull(self) -> Tensor:
        """What the error is moved back by, [I, O]: the objective's gradient, halved."""
        return self.hessian @ (self.target - self.decode())


def objective(fit: Fit) -> float:
    """The objective, over all outputs."""
    return float(((fit.target - fit.decode()) * fit.pull).sum(dtype=torch.float64))


def refit_book(fit: Fit) -> Tensor:
    """Codebook [k, d] of least squares for the present choices and scales.

    Conjugate gradients from the present codebook: a step decodes, multiplies by the Hessian and
    sums what belongs to each codeword. Codewords that nobody chose stay.
    """
    book = fit.codewords.book
    k = len(book)
    used = torch.bincount(fit.indices.reshape(-1), minlength=k) > 0
    rest = fit.gather(fit.pull)
    # Jacobi: how often a number stands somewhere, by the energy there.
    energy = fit.hessian.diagonal()[:, None] * fit.unit.square()
    rows = energy.view(-1, book.shape[1], energy.shape[1]).permute(0, 2, 1)
    weight = torch.zeros_like(book).index_add_(
        0, fit.indices.reshape(-1), rows.reshape(-1, book.shape[1])
    )
    inverse = torch.where(weight > 0, 1 / weight.clamp(min=1e-30), 0)
    book = book.clone()
    ahead = inverse * rest
    direction, power = ahead.clone(), (rest * ahead).sum()
    first = power.clone()
    for _ in range(_STEPS):
        if not power > _SETTLED**2 * first:
            break
        moved = fit.gather(fit.hessian @ fit.decode(direction))
        step = power / (direction * moved).sum()
        book += step * direction
        rest -= step * moved
        ahead = inverse * rest
        previous, power = power, (rest * ahead).sum()
        direction = ahead + (power / previous) * direction
    return torch.where(used[:, None], book, fit.codewords.book)


def refit_unit(fit: Fit, outputs: list[int], per_output: bool) -> Tensor:
    """Scales [O] of least squares for the present codes; those that would not be positive stay.

    Parameters
    ----------
    fit : Fit
    outputs : list of int
        Outputs of every layer.
    per_output : bool
        Whether every output has a scale, not every layer.
    """
    codes = fit.decode()
    pulled = fit.hessian @ codes
    above, below = (fit.target * pulled).sum(0), (codes * pulled).sum(0)
    if not per_output:
        sums = [
            torch.stack([part.sum() for part in torch.split(x, outputs)]) for x in (above, below)
        ]
        counts = torch.tensor(outputs, device=above.device)
        above, below = (one.repeat_interleave(counts) for one in sums)
    factor = above / below
    return torch.where(torch.isfinite(factor) & (factor > 0), factor, 1.0) * fit.unit


def swept(fit: Fit, leaf: int = 32) -> Fit:
    """Let every group in turn choose again, the others as they are; never for worse.

    What a group's change moves the pull of the others by is passed on as errors are in the solver,
    with the Hessian in place of the feedback.

    Parameters
    ----------
    fit : Fit
        Left as it is.
    leaf : int
        Columns that are worked off group by group; matters to speed only.
    """
    d = fit.codewords.book.shape[1]
    sweep = _Sweep(
        fit.pull.clone(),
        fit.target,
        fit.hessian,
        None,
        Correction(),
        leaf=-(-leaf // d) * d,
        wholes=set(),
    )
    sweep.fit = replace(
        fit,
        indices=fit.indices.clone(),
        negative=None if fit.negative is None else fit.negative.clone(),
    )
    sweep.codes = fit.decode()
    sweep.solve(0, len(fit.target))
    return sweep.fit


class _Sweep(Recursion):
    """``current`` is the pull; ``errors`` are the changes of the codes."""

    fit: Fit
    codes: Tensor

    def solve_leaf(self, start: int, end: int) -> None:
        fit = self.fit
        d = fit.codewords.book.shape[1]
        for at in range(start, end, d):
            own, done = slice(at, at + d), slice(start, at)
            pull = self.current[own]
            if at > start:
                pull.addmm_(self.feedback[done, own].T, self.errors[done], alpha=-1)
            metric = self.feedback[own, own]
            # Where the group would best be: what it is now, and what the rest pulls it by.
            away = torch.linalg.solve(metric, pull)
            now = self.codes[own]
            wanted = now + away
            choice = fit.codewords.choose(wanted, metric, fit.unit)
            better = cost_of(wanted - choice.values, metric) < cost_of(away, metric)
            self.errors[own] = torch.where(better, choice.values - now, 0.0)
            group = fit.indices[at // d]
            torch.where(better, choice.indices, group, out=group)
            if fit.negative is not None and choice.negative is not None:
                fit.negative[own] = torch.where(better, choice.negative, fit.negative[own])
