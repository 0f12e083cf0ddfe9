"""Choice and refit in C against torch's, which do the same in the same order."""

from dataclasses import replace

import pytest
import torch

from rescomp.codebooks import kernels
from rescomp.codebooks.choice import Codewords, cost_of
from tests.rescomp.codebooks.test_choice import given
from tests.rescomp.codebooks.test_refit import fit


@pytest.fixture
def both(monkeypatch):
    """Choose in C and in torch."""

    def choose(words, *given):
        assert kernels.library(given[0]) is not None
        found = words.choose(*given)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "library", lambda like: None)
            return found, words.choose(*given)

    return choose


@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("d", [1, 2, 4, 5, 8])
@pytest.mark.parametrize(("signed", "parity"), [(False, False), (True, False), (True, True)])
def test_both_choose_the_same(both, signed, parity, d, k):
    if parity and d == 1:
        pytest.skip("a sign that is always positive is none")
    weight, metric, book, unit = given(d, k, outputs=131)
    book = book if signed else torch.cat([book, -book])
    words = Codewords(book, signed, parity, candidates=min(k, 6))
    wide = torch.cat([weight, weight], dim=1)
    for strided in (weight, wide[:, 131:], weight.T.contiguous().T):
        for scale in (unit, unit[:1]):
            mine, theirs = both(words, strided, metric, scale)
            assert torch.equal(mine.indices, theirs.indices)
            torch.testing.assert_close(mine.values, theirs.values)
            if signed:
                assert torch.equal(mine.negative, theirs.negative)
                stands = torch.where(mine.negative, -book[mine.indices].T, book[mine.indices].T)
            else:
                assert mine.negative is None and theirs.negative is None
                stands = book[mine.indices].T
            torch.testing.assert_close(mine.values, stands * scale, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("signed", "parity"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("d", [3, 4, 8])
def test_costs_differ_by_rounding_in_float32(both, d, signed, parity):
    tensors = [x.float() for x in given(d, 200, outputs=3000)]
    weight, metric, book, unit = tensors
    words = Codewords(book, signed, parity)
    costs = [cost_of(weight - one.values, metric) for one in both(words, *(weight, metric, unit))]
    torch.testing.assert_close(*(cost.sum() for cost in costs), rtol=1e-5, atol=0)
    near = (costs[0] - costs[1]).abs() <= 1e-4 * costs[1]
    assert near.double().mean() > 0.999


def test_an_outputs_choice_is_its_own():
    weight, metric, book, unit = given(8, 50, outputs=100)
    words = Codewords(book, True)
    want = words.choose(weight, metric, unit)
    for own in (slice(0, 1), slice(37, 90)):
        found = words.choose(weight[:, own], metric, unit[own])
        assert torch.equal(found.indices, want.indices[own])
        assert torch.equal(found.values, want.values[:, own])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_both_decode_and_gather_the_same(signed, dtype, monkeypatch):
    one = fit(signed=signed, outputs=77)
    one = replace(
        one,
        codewords=replace(one.codewords, book=one.codewords.book.to(dtype)),
        unit=one.unit.to(dtype),
    )
    other = torch.randn_like(one.codewords.book)
    values = torch.randn(24, 77, dtype=dtype)
    mine = one.decode(), one.decode(other), one.gather(values)
    monkeypatch.setattr(kernels, "library", lambda like: None)
    theirs = one.decode(), one.decode(other), one.gather(values)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close((other * mine[2]).sum(), (mine[1] * values).sum())


def test_what_torch_does_alone():
    assert kernels.library(torch.empty(1, dtype=torch.bfloat16)) is None
    assert kernels.library(torch.empty(1, device="meta")) is None
