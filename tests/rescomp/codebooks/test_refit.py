"""Codebook, scales and choices again: least squares, and never for the worse."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from rescomp.codebooks.choice import Codewords, cost_of
from rescomp.codebooks.refit import Fit, objective, refit_book, refit_unit, swept


def fit(*, signed=True, parity=False, inputs=24, outputs=30, d=4, k=6, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(inputs, 3 * inputs) + normal(1, 3 * inputs)
    book = normal(k, d).abs() if signed else normal(k, d)
    negative = normal(inputs, outputs) < 0 if signed else None
    if parity:
        parts = negative.view(-1, d, outputs)
        parts[:, 0] ^= parts.sum(1) % 2 == 1
    indices = torch.randint(k, (inputs // d, outputs), generator=generator)
    words = Codewords(book, signed, parity)
    return Fit(normal(inputs, outputs), x @ x.T, words, normal(outputs).exp(), indices, negative)


def designed(one):
    """Matrix of the least squares in the codebook, and its right side, rows weighed by the root."""
    k, d = one.codewords.book.shape
    root = torch.linalg.cholesky(one.hessian).T
    columns = []
    for number in range(k * d):
        book = torch.zeros(k * d, dtype=torch.float64)
        book[number] = 1
        columns.append((root @ one.decode(book.view(k, d))).reshape(-1))
    return torch.stack(columns, 1), (root @ one.target).reshape(-1)


@pytest.mark.parametrize("signed", [False, True])
def test_codebook_is_that_of_least_squares(signed):
    one = fit(signed=signed)
    matrix, right = designed(one)
    want = torch.linalg.lstsq(matrix, right[:, None]).solution.view(one.codewords.book.shape)
    found = refit_book(one)
    lower = objective(replace(one, codewords=replace(one.codewords, book=found)))
    best = objective(replace(one, codewords=replace(one.codewords, book=want)))
    assert best <= lower < best + 1e-3 * (objective(one) - best)


def test_codewords_that_nobody_chose_stay():
    one = fit()
    one.indices[one.indices == 2] = 1
    found = refit_book(one)
    assert torch.equal(found[2], one.codewords.book[2])
    assert not torch.equal(found[1], one.codewords.book[1])


@pytest.mark.parametrize("per_output", [True, False])
def test_scales_are_those_of_least_squares(per_output):
    one = fit()
    found = refit_unit(one, [10, 20], per_output)
    factor = found / one.unit
    if not per_output:
        want = torch.stack([factor[0], factor[10]]).repeat_interleave(torch.tensor([10, 20]))
        torch.testing.assert_close(factor, want)
    before = objective(replace(one, unit=found))
    assert before < objective(one)
    for step in (0.99, 1.01):  # no other is better
        for chosen in (slice(0, 1) if per_output else slice(0, 10), slice(10, None)):
            other = found.clone()
            other[chosen] *= step
            moved = (factor[chosen] != 1).all()
            assert objective(replace(one, unit=other)) > before or not moved


@pytest.mark.parametrize(("signed", "parity"), [(False, False), (True, False), (True, True)])
def test_sweeps_never_raise_the_objective(signed, parity):
    one = fit(signed=signed, parity=parity)
    values = [objective(one)]
    for _ in range(3):
        one = swept(one)
        values.append(objective(one))
        one = replace(one, codewords=replace(one.codewords, book=_refitted(one)))
        values.append(objective(one))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(values))
    assert values[-1] < 0.6 * values[0]
    if parity:
        assert (one.negative.view(-1, 4, 30).sum(1) % 2 == 0).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_sweep_is_every_group_by_itself_however_it_is_cut(signed):
    one = fit(signed=signed)
    before = one.indices.clone()
    found = [swept(one, leaf) for leaf in (1, 8, 1000)]
    assert torch.equal(one.indices, before)
    for group in range(len(one.indices)):
        own = slice(4 * group, 4 * group + 4)
        metric = one.hessian[own, own]
        codes = one.decode()
        pull = one.hessian[own] @ (one.target - codes)
        wanted = codes[own] + torch.linalg.solve(metric, pull)
        choice = one.codewords.choose(wanted, metric, one.unit)
        better = cost_of(wanted - choice.values, metric) < cost_of(wanted - codes[own], metric)
        one.indices[group] = torch.where(better, choice.indices, one.indices[group])
        if signed:
            one.negative[own] = torch.where(better, choice.negative, one.negative[own])
    assert not torch.equal(one.indices, before)
    for other in found:
        assert torch.equal(other.indices, one.indices)
        if signed:
            assert torch.equal(other.negative, one.negative)


def test_a_choice_is_kept_where_a_poorer_search_finds_none_as_good():
    one = fit()
    for _ in range(8):  # all codewords are candidates
        one = swept(replace(one, codewords=replace(one.codewords, candidates=6)))
    settled = objective(one)
    one = swept(replace(one, codewords=replace(one.codewords, candidates=1)))
    assert objective(one) <= settled * (1 + 1e-12)


def _refitted(one):
    book = refit_book(one)
    if not one.codewords.signed:
        return book
    book = book.clamp(min=0)
    tried = replace(one, codewords=replace(one.codewords, book=book))
    return book if objective(tried) < objective(one) else one.codewords.book
