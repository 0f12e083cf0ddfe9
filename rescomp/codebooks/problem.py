"""Layers that share their inputs and a codebook, in the solver's layout: one wide matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from rescomp.codebooks.choice import Codewords
from rescomp.codebooks.refit import Fit, objective, refit_book, refit_unit, swept
from rescomp.codebooks.settings import Fitting
from rescomp.codebooks.solver import group_cross_, group_feedback, solve_groups
from rescomp.codebooks.start import clustered, expected
from rescomp.factor import inverse_factor, transposed_times
from rescomp.methods import Correction
from rescomp.settings import Settings
from vq.calibration.statistics import Statistics, is_finite
from vq.container import Geometry
from vq.container.constants import CODE_MAX
from vq.formats.integers import codebook_step, round_through
from vq.formats.points import SILENT

__all__ = ["Problem", "Solution"]

#: Importance that every output has, in units of the mean.
_LEAST = 2.0**-20


@dataclass(frozen=True, eq=False)
class Solution:
    """What was found, columns and groups in their own order.

    Attributes
    ----------
    book : [k, d]
        In units, not rounded yet.
    indices : [I / d, O] int64
    latent : [I, O]
        Weights as they were when their codewords were chosen, with the signs that were.
    unit : [O]
    """

    book: Tensor
    indices: Tensor
    latent: Tensor
    unit: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights with dead inputs at rest, and groups in the order of solving.

    Attributes
    ----------
    g : Geometry
        Of one of the layers: d, k, signs, and whether every output has a scale.
    original : [I, O]
        Columns as rows, in the order of solving; I is filled up to a multiple of d. Dead ones are
        0.
    hessian, cross : [I, I]
        In their own order: those of the statistics themselves, where nothing is filled or dead.
    groups : [I / d] int64
        Original place of every group.
    outputs : list of int
        Outputs of every layer.
    roots : [O]
        Of the importance of every output. ``original`` is multiplied by it, and so are all units:
        rows are separate given the codebook, so that this is all that importance comes to.
    book : [k, d] or None
        A codebook that stays as it is.
    seed : int
    """

    g: Geometry
    correction: Correction
    settings: Settings
    fitting: Fitting
    original: Tensor
    hessian: Tensor
    cross: Tensor | None
    groups: Tensor
    outputs: list[int]
    roots: Tensor
    book: Tensor | None
    seed: int

    @classmethod
    def of(
        cls,
        weights: Sequence[Tensor],
        g: Geometry,
        correction: Correction,
        statistics: Statistics,
        settings: Settings,
        fitting: Fitting,
        book: Tensor | None,
        seed: int,
        importance: Tensor | None = None,
    ) -> "Problem":
        """Lay out weights [O, I], to be solved with the statistics of their inputs.

        ``importance`` [O] is that of the outputs of all of them.
        """
        device, fill = weights[0].device, -g.I % g.d

        def local(matrix: Tensor) -> Tensor:
            matrix = matrix.to(device, settings.dtype)
            return pad(matrix, (0, fill, 0, fill)) if fill else matrix

        hessian, cross = local(statistics.hessian), None
        if correction.cross and statistics.cross is not None:
            cross = local(statistics.cross)
        original = torch.cat([weight.to(settings.dtype) for weight in weights]).T
        energy = hessian.diagonal().clone()
        dead = energy == 0
        roots = _roots(importance, original)
        original = pad(original * roots, (0, 0, 0, fill)).masked_fill_(dead[:, None], 0)
        groups = torch.arange(len(energy) // g.d, device=device)
        if settings.activation_order:
            groups = torch.argsort(energy.view(-1, g.d).sum(1), descending=True, stable=True)
        if bool(dead.any()):
            hessian = hessian.clone()
            hessian.diagonal()[dead] = energy[~dead].mean() if bool((~dead).any()) else 1.0
        return cls(
            g,
            correction,
            settings,
            fitting,
            original[_columns(groups, g.d)],
            hessian,
            cross,
            groups,
            [len(weight) for weight in weights],
            roots,
            None if book is None else book.to(original),
            seed,
        )

    def solve(self, damping: float) -> Solution | None:
        """Solve with so much damping; None if more is needed."""
        terms = self._terms(damping)
        if terms is None:
            return None
        best = None
        for tried in self._tries(terms):
            if not is_finite(tried.latent):
                return None
            if best is None or objective(tried.fit) < objective(best.fit):
                best = tried
        assert best is not None
        fit, latent = best.fit, best.latent / self.roots
        if fit.negative is not None:
            latent = torch.where(fit.negative, -latent.abs(), latent.abs())
        indices, places = torch.empty_like(fit.indices), torch.empty_like(latent)
        indices[self.groups] = fit.indices
        places.view(len(self.groups), self.g.d, -1)[self.groups] = latent.view(
            len(self.groups), self.g.d, -1
        )
        return Solution(best.book, indices, places, fit.unit / self.roots)

    def _terms(self, damping: float) -> "_Terms | None":
        """What all starts share; None if the Hessian needs more damping."""
        factor = inverse_factor(self.hessian, damping, _columns(self.groups, self.g.d))
        if factor is None:
            return None
        cross = None if self.cross is None else self.ordered(self.cross)
        goal = self._goal(factor, cross)
        if self.correction.asymmetry or self.correction.drift:
            cross = None if cross is None else group_cross_(cross, factor, self.g.d)
        else:
            cross = None
        feedback, metrics = group_feedback(factor, self.g.d)
        return _Terms(self, damping, goal, self._unit(goal), metrics, feedback, cross)

    def ordered(self, matrix: Tensor) -> Tensor:
        """Copy [I, I] in the order of solving."""
        order = _columns(self.groups, self.g.d)
        return matrix[order[:, None], order]

    def _goal(self, factor: Tensor, cross: Tensor | None) -> Tensor:
        """The weight [I, O] whose outputs are nearest to those wanted, before any rounding."""
        share = self.correction.exact or self.correction.asymmetry
        if cross is None or not share:
            return self.original
        shift = factor @ (cross.T @ self.original)
        return torch.add(self.original, transposed_times(factor, shift), alpha=share)

    def _unit(self, goal: Tensor) -> Tensor:
        """Root mean square of every output, or of every layer; [O]."""
        squares = (goal / self.roots).square().sum(0) / self.g.I
        if self.g.scales <= 1:
            parts = torch.split(squares, self.outputs)
            squares = torch.cat([part.mean().expand(len(part)) for part in parts])
        unit = squares.sqrt()
        # An output without any weight gets codewords, too: they must stay silent.
        return torch.where(unit > 0, unit, SILENT if unit.any() else 1.0) * self.roots

    def _tries(self, terms: "_Terms") -> Iterator["_Try"]:
        """Solutions from one codebook after the other."""
        if self.book is not None:
            yield self._from(self.book, terms, last=True)
            return
        for start in range(self.fitting.restarts):
            weight, book, seed = terms.goal, None, self.seed + start
            for again in range(1 + self.fitting.again):
                last = (start + 1, again) == (self.fitting.restarts, self.fitting.again)
                found = self._from(self._start(weight, book, terms, seed), terms, last=last)
                yield found
                weight, book = found.latent, found.book

    def _start(self, weight: Tensor, book: Tensor | None, terms: "_Terms", seed: int) -> Tensor:
        """Codebook [k, d] of sub-vectors of a weight, anew or from the one before."""
        if book is None or not self.fitting.em:
            book = self._clustered(weight, terms, seed)
        words = replace(self._codewords(book), book=book)
        return expected(weight, terms.unit, terms.metrics, words, self.fitting.em, seed)

    def _clustered(self, weight: Tensor, terms: "_Terms", seed: int) -> Tensor:
        # What is left of an error once the columns behind have made up for it, not the energy of
        # its input: that would spend most codewords on the few inputs that are huge.
        costs = terms.metrics.diagonal(dim1=1, dim2=2).reshape(-1)
        return clustered(weight, terms.unit, costs, self.g, self.fitting.iterations, seed)

    def _from(self, book: Tensor, terms: "_Terms", *, last: bool) -> "_Try":
        """Choose and refit; the last one lets go of what the solver alone needs."""
        correction, signed = self.correction, bool(self.g.sign_bits)
        codewords = self._codewords(book)
        current = (terms.goal if correction.exact else self.original).clone()
        choices = solve_groups(
            current,
            self.original,
            terms.feedback,
            terms.metrics,
            terms.cross,
            codewords,
            terms.unit,
            correction,
            leaf=self.settings.leaf,
        )
        if last:
            del terms.feedback, terms.cross
        indices = torch.stack([choice.indices for choice in choices])
        signs = [choice.negative for choice in choices if choice.negative is not None]
        negative = torch.cat(signs) if signed else None
        fit = Fit(terms.goal, terms.hessian, codewords, terms.unit, indices, negative)
        for sweep in range(self.fitting.sweeps + 1 if self.fitting.sweeps else 0):
            if sweep:
                fit = swept(fit, self.settings.leaf)
            book, fit = self._refitted(book, fit)
        return _Try(book, fit, current)

    def _refitted(self, book: Tensor, fit: Fit) -> tuple[Tensor, Fit]:
        """Codebook and scales of least squares, if rounding the codebook leaves anything of it."""
        found = book if self.book is not None else refit_book(fit)
        if self.g.sign_bits:
            found = found.clamp(min=0)
        tried = replace(fit, codewords=self._codewords(found))
        tried = replace(tried, unit=refit_unit(tried, self.outputs, self.g.scales > 1))
        return (found, tried) if objective(tried) < objective(fit) else (book, fit)

    def _codewords(self, book: Tensor) -> Codewords:
        g = self.g
        parity = 0 < g.sign_bits < g.d
        return Codewords(_stored(book, g), bool(g.sign_bits), parity, self.fitting.candidates)


@dataclass(eq=False)
class _Terms:
    """What all starts of a problem share: see :func:`solve_groups` and :class:`Fit`."""

    problem: Problem
    damping: float
    goal: Tensor
    unit: Tensor
    metrics: Tensor
    feedback: Tensor
    cross: Tensor | None

    @cached_property
    def hessian(self) -> Tensor:
        """Damped and in the order of solving; nobody needs it before the first fit."""
        hessian = self.problem.ordered(self.problem.hessian)
        hessian.diagonal().add_(self.damping * hessian.diagonal().mean())
        return hessian


@dataclass(frozen=True, eq=False)
class _Try:
    """A codebook before it is rounded, what was chosen of it, and the weight before that."""

    book: Tensor
    fit: Fit
    latent: Tensor


def _columns(groups: Tensor, d: int) -> Tensor:
    """Columns [I] of groups [I / d]."""
    return (groups[:, None] * d + torch.arange(d, device=groups.device)).reshape(-1)


def _roots(importance: Tensor | None, original: Tensor) -> Tensor:
    """Roots [O] of the importance of outputs, in units of their mean; none is 0."""
    if importance is None or not importance.any():
        return torch.ones_like(original[0])
    shares = (importance.double() / importance.double().mean()).clamp(min=_LEAST)
    return shares.sqrt().to(original)


def _stored(book: Tensor, g: Geometry) -> Tensor:
    """Codebook [k, d] as the integers of the container stand for it, in units."""
    step = codebook_step(book)
    return round_through(book / step, 0 if g.sign_bits else -CODE_MAX) * step
