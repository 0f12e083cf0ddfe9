"""What must hold exactly, in float64: groups in turn against their literal form, and each other."""

import numpy as np
import pytest
import torch

from rescomp import FOEM, GPTAQ, GPTAQR, GPTQ, GPTQR, QEP
from rescomp.codebooks.choice import Codewords
from rescomp.codebooks.solver import group_cross_, group_feedback, solve_groups
from rescomp.factor import cross_term_, inverse_factor, transposed_times
from rescomp.solver import solve_columns
from tests.rescomp.oracles import DAMPING, damped, problem

METHODS = [GPTQ(), GPTAQ(), GPTAQ(1.0), GPTQR(), GPTAQR(), GPTAQR(0.25, 0.5), FOEM(), QEP()]


def parts(p, method, d):
    """What the solver takes: target, original, feedback, metrics, cross."""
    factor = inverse_factor(torch.from_numpy(p.hessian), DAMPING)
    correction = method.correction()
    original = p.tensor().T.contiguous()
    current, cross = original.clone(), None
    if correction.exact:
        shift = factor @ (torch.from_numpy(p.cross).T @ original)
        current += correction.exact * transposed_times(factor, shift)
    elif correction.cross:
        cross = group_cross_(torch.from_numpy(p.cross), factor, d)
    return current, original, *group_feedback(factor, d), cross


def magnitudes(d, k=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, d, generator=generator, dtype=torch.float64).abs()


def solved(p, method, words, *, leaf=32):
    current, original, feedback, metrics, cross = parts(p, method, words.book.shape[1])
    unit = original.square().mean(0).sqrt()
    choices = solve_groups(
        current, original, feedback, metrics, cross, words, unit, method.correction(), leaf=leaf
    )
    return torch.cat([choice.values for choice in choices]), current


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_one_column_and_uniform_codewords_are_the_scalar_solver(method):
    p = problem(9, 40)
    words = Codewords(torch.arange(-3.0, 4).double()[:, None], signed=False)

    class Uniform:
        """Seven levels of one scale per output, as :class:`rescomp.levels.ColumnGrids`."""

        dynamic, width = False, 40
        unit = p.tensor().T.square().mean(0).sqrt()

        def round(self, column, weight, out):
            torch.div(weight, self.unit, out=out).round_().clamp_(-3, 3)
            return self.unit

    factor = inverse_factor(torch.from_numpy(p.hessian), DAMPING)
    current, original, _, _, cross = parts(p, method, 1)
    if cross is not None:
        assert torch.equal(cross, group_cross_(torch.from_numpy(p.cross), factor, 1))
        torch.testing.assert_close(cross, cross_term_(torch.from_numpy(p.cross), factor))
    feedback = factor / factor.diagonal()[:, None]
    levels = solve_columns(current, original, feedback, cross, Uniform(), method.correction())
    found, _ = solved(p, method, words)
    assert torch.equal(torch.round(found / Uniform.unit), levels)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_groups_are_least_squares_solved_again(method, signed):
    """The update of every group, with the free Hessian inverted anew."""
    d, p = 4, problem(9, 40)
    book = magnitudes(d)
    words = Codewords(book if signed else torch.cat([book, -book]), signed)
    found, _ = solved(p, method, words)
    correction, h = method.correction(), damped(p.hessian)
    original = p.weight.copy()
    weight = original + correction.exact * original @ p.cross @ np.linalg.inv(h)
    unit = torch.from_numpy(original).square().mean(1).sqrt()
    out = np.zeros_like(weight)
    for at in range(0, 40, d):
        own, free, rest = slice(at, at + d), slice(at, None), slice(at + d, None)
        w = weight[:, own].copy()
        metric = np.linalg.inv(np.linalg.inv(h[free, free])[:d, :d])
        tensors = torch.from_numpy(w.T.copy()), torch.from_numpy(metric)
        out[:, own] = words.choose(*tensors, unit).values.numpy().T
        drift = correction.drift * (original[:, own] - w)
        inverse = np.linalg.inv(h[free, free])
        move = np.linalg.solve(inverse[:d, :d], inverse[:d, d:])
        weight[:, rest] -= (w - out[:, own] + drift) @ move
        if correction.cross and not correction.exact:
            p_term = p.cross[own, rest] @ np.linalg.inv(h[rest, rest])
            weight[:, rest] += (correction.asymmetry * w + drift) @ p_term
        elif drift.any() and correction.cross:
            raise AssertionError("no method has both")
    np.testing.assert_allclose(found.T.numpy(), out, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_cuts_do_not_matter(method):
    p = problem(9, 60)
    words = Codewords(magnitudes(4), signed=True)
    want, _ = solved(p, method, words, leaf=1000)
    for leaf in (1, 4, 7, 16, 33):
        assert torch.equal(solved(p, method, words, leaf=leaf)[0], want)


def test_without_coupling_every_group_chooses_by_itself():
    p = problem(50, 24)
    p.x = p.y = np.eye(24)
    words = Codewords(magnitudes(8), signed=True, candidates=16)
    found, current = solved(p, GPTQ(), words)
    assert torch.equal(current, p.tensor().T)
    unit = p.tensor().square().mean(1).sqrt()
    points = (p.tensor() / unit[:, None]).reshape(-1, 8)
    nearest = torch.cdist(points.abs(), words.book).argmin(1)
    want = torch.copysign(words.book[nearest], points).reshape(50, 24) * unit[:, None]
    torch.testing.assert_close(found.T, want)
