"""What is chosen for a group of columns, against all that could be."""

import itertools

import pytest
import torch

from rescomp.codebooks.choice import Codewords, cost_of


def given(d=4, k=8, outputs=200, seed=0, coupled=0.7):
    """Weights [d, O], a metric whose columns are coupled, magnitudes [k, d], scales [O]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mix = normal(d, 2 * d) + coupled * normal(1, 2 * d)
    return normal(d, outputs), mix @ mix.T, normal(k, d).abs(), normal(outputs).exp()


def every(book, signed, parity):
    """All values [n, d] that a sub-vector can have."""
    if not signed:
        return book
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=book.shape[1])))
    if parity:
        signs = signs[signs.prod(1) > 0]
    return (book[:, None] * signs.double()).reshape(-1, book.shape[1])


def least(weight, metric, unit, values):
    rest = weight[:, None] - values.T[..., None] * unit
    return torch.einsum("dno,de,eno->no", rest, metric, rest).amin(0)


def cost(words, weight, metric, unit):
    choice = words.choose(weight, metric, unit)
    return cost_of(weight - choice.values, metric), choice


@pytest.mark.parametrize("d", [1, 2, 4])
def test_plain_codewords_are_the_nearest(d):
    weight, metric, book, unit = given(d)
    book = torch.cat([book, -book])
    found, choice = cost(Codewords(book, signed=False), weight, metric, unit)
    torch.testing.assert_close(found, least(weight, metric, unit, book))
    assert choice.negative is None


@pytest.mark.parametrize("parity", [False, True])
def test_signs_are_the_weights_own_where_nothing_is_coupled(parity):
    weight, _, book, unit = given()
    metric = torch.diag(torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    words = Codewords(book, True, parity, candidates=len(book))
    found, choice = cost(words, weight, metric, unit)
    torch.testing.assert_close(found, least(weight, metric, unit, every(book, True, parity)))
    if not parity:
        assert torch.equal(choice.negative, weight < 0)


@pytest.mark.parametrize("parity", [False, True])
def test_signs_that_are_searched_are_seldom_beaten(parity):
    weight, metric, book, unit = given(outputs=2000)
    best = least(weight, metric, unit, every(book, True, parity))
    words = Codewords(book, True, parity, candidates=len(book))
    found, choice = cost(words, weight, metric, unit)
    assert (found >= best - 1e-9).all()
    assert (found <= best + 1e-9).double().mean() > 0.95
    assert found.mean() < 1.15 * best.mean()
    few, _ = cost(Codewords(book, True, parity), weight, metric, unit)
    assert few.mean() < 1.2 * best.mean()
    if parity:
        assert (choice.negative.sum(0) % 2 == 0).all()


def test_parity_counts_signs_of_zero_magnitudes():
    weight, metric, book, unit = given()
    book[:, 1] = 0
    found, choice = cost(Codewords(book, True, True, len(book)), weight, metric, unit)
    assert (choice.negative.sum(0) % 2 == 0).all()
    # The zero's sign is there to be turned: nothing is lost to parity.
    free = least(weight, metric, unit, every(book, True, False))
    assert (found <= free + 1e-9).double().mean() > 0.95
