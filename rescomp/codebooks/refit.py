"""What is refitted when all choices are made: codebook, scales, choices again, by the outputs.

The objective is ``tr((W - Q) H (W - Q)')`` for a target ``W`` and the weight ``Q`` that the codes
stand for: least squares in the codebook, in the scales, and in any one group of columns.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rescomp.codebooks.choice import Codewords, cost_of

__all__ = ["Fit", "objective", "refit_book", "refit_unit", "sweep_"]

#: Steps of conjugate gradients at most; fewer once the residual is this share of the first.
_STEPS, _SETTLED = 30, 1e-4


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
        values = book[self.indices].permute(0, 2, 1).reshape(self.target.shape)
        if self.negative is not None:
            values = torch.where(self.negative, -values, values)
        return values * self.unit


def objective(fit: Fit) -> float:
    """The objective, over all outputs."""
    rest = fit.target - fit.decode()
    return float((rest * (fit.hessian @ rest)).sum(dtype=torch.float64))


def refit_book(fit: Fit) -> Tensor:
    """Codebook [k, d] of least squares for the present choices and scales.

    Conjugate gradients from the present codebook: a step decodes, multiplies by the Hessian and
    sums what belongs to each codeword. Codewords that nobody chose stay.
    """
    book = fit.codewords.book
    k, d = book.shape

    def gathered(values: Tensor) -> Tensor:
        """Sum [I, O] over where each number of the codebook stands, with its sign and scale."""
        scaled = values * fit.unit
        if fit.negative is not None:
            scaled = torch.where(fit.negative, -scaled, scaled)
        rows = scaled.view(-1, d, scaled.shape[1]).permute(0, 2, 1).reshape(-1, d)
        return torch.zeros_like(book).index_add_(0, fit.indices.reshape(-1), rows)

    used = torch.bincount(fit.indices.reshape(-1), minlength=k) > 0
    rest = gathered(fit.hessian @ (fit.target - fit.decode()))
    # Jacobi: how often a number stands somewhere, by the energy there.
    energy = fit.hessian.diagonal()[:, None] * fit.unit.square()
    rows = energy.view(-1, d, energy.shape[1]).permute(0, 2, 1).reshape(-1, d)
    weight = torch.zeros_like(book).index_add_(0, fit.indices.reshape(-1), rows)
    inverse = torch.where(weight > 0, 1 / weight.clamp(min=1e-30), 0)
    book = book.clone()
    ahead = inverse * rest
    direction, power = ahead.clone(), (rest * ahead).sum()
    first = power.clone()
    for _ in range(_STEPS):
        if not power > _SETTLED**2 * first:
            break
        moved = gathered(fit.hessian @ fit.decode(direction))
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


def sweep_(fit: Fit) -> None:
    """Let every group in turn choose again, the others as they are; in place, never for worse."""
    d = fit.codewords.book.shape[1]
    rest = fit.target - fit.decode()
    for group in range(len(fit.indices)):
        own = slice(group * d, (group + 1) * d)
        metric = fit.hessian[own, own]
        # Where the group would best be: what it is now, and what the rest pulls it by.
        now = fit.target[own] - rest[own]
        away = torch.linalg.solve(metric, fit.hessian[own] @ rest)
        wanted = now + away
        choice = fit.codewords.choose(wanted, metric, fit.unit)
        found = choice.values
        better = cost_of(wanted - found, metric) < cost_of(away, metric)
        rest[own] = torch.where(better, fit.target[own] - found, rest[own])
        fit.indices[group] = torch.where(better, choice.indices, fit.indices[group])
        if fit.negative is not None and choice.negative is not None:
            fit.negative[own] = torch.where(better, choice.negative, fit.negative[own])
