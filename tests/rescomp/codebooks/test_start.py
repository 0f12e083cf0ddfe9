"""What a codebook starts as."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from rescomp.codebooks import start
from rescomp.codebooks.choice import Codewords, cost_of
from rescomp.codebooks.start import clustered, expected
from vq import SSVQ, VQ
from vq.clustering.kmeans import kmeans

UNIT = torch.tensor([1.0, 10.0])


def weight():
    """Two words in turn, of one output as they are, of the other with signs and ten times."""
    words = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    column = words[torch.arange(8) % 2].reshape(-1)
    return torch.stack([column, 10 * column * torch.tensor([1, -1]).repeat(8)], 1), words


def sorted_rows(book):
    return book[book[:, 0].argsort()]


def test_signs_and_units_are_left_out():
    goal, words = weight()
    g = SSVQ(d=2, k=2, scale="output").geometry("a", "linear", (2, 16))
    book = clustered(goal, UNIT, torch.ones(16), g, 25, 0)
    torch.testing.assert_close(sorted_rows(book), words)
    plain = VQ(d=2, k=4, scale="output").geometry("a", "linear", (2, 16))
    book = clustered(goal, UNIT, torch.ones(16), plain, 25, 0)
    assert {tuple(row) for row in book.tolist()} == {(1, 2), (3, 1), (1, -2), (3, -1)}


def test_inputs_weigh_by_what_an_error_there_costs():
    goal = torch.tensor([1.0, 0, 2, 0, 10, 0])[:, None].expand(6, 2).contiguous()
    costs = torch.tensor([3.0, 1, 1, 1, 1, 1])
    g = VQ(d=2, k=2).geometry("a", "linear", (2, 6))
    book = clustered(goal, torch.ones(2), costs, g, 25, 0)
    torch.testing.assert_close(sorted_rows(book), torch.tensor([[1.25, 0.0], [10.0, 0.0]]))


def test_equal_seeds_give_equal_codebooks():
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(64, 40, generator=generator)
    g = VQ(d=4, k=2).geometry("a", "linear", (40, 64))
    books = [clustered(goal, torch.ones(40), torch.ones(64), g, 5, seed) for seed in (0, 0, 1)]
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])


def coupled(*, signed, d=4, k=6, groups=5, outputs=60):
    """Goal [I, O], scales, metrics [I / d, d, d] of coupled columns, codewords."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mix = normal(groups, d, 2 * d) + normal(groups, 1, 2 * d)
    book = normal(k, d)
    words = Codewords(book.abs() if signed else book, signed, candidates=k)
    return normal(groups * d, outputs), normal(outputs).exp(), mix @ mix.mT, words


def cost(goal, unit, metrics, words, book):
    """What is left of every group's error once all have chosen."""
    words = Codewords(book, words.signed, candidates=len(book))
    total = 0.0
    for weight, metric in zip(goal.view(len(metrics), -1, goal.shape[1]), metrics, strict=True):
        rest = weight - words.choose(weight, metric, unit).values
        total += float(cost_of(rest, metric).sum())
    return total


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_without_coupling_rounds_are_those_of_k_means(rounds):
    goal, _, metrics, words = coupled(signed=False)
    metrics = torch.eye(4, dtype=torch.float64).expand_as(metrics)
    points = goal.T.reshape(-1, 4).float().numpy()
    start = kmeans(points, 6, iterations=0).codebook
    words = Codewords(torch.from_numpy(start).double(), signed=False)
    found = expected(goal, torch.ones(60).double(), metrics, words, rounds, 0)
    want = kmeans(points, 6, iterations=rounds).codebook
    np.testing.assert_allclose(found.numpy(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_rounds_never_raise_the_cost(signed):
    goal, unit, metrics, words = coupled(signed=signed)
    costs = []
    for rounds in range(6):
        book = expected(goal, unit, metrics, words, rounds, 0)
        assert not signed or bool((book >= 0).all())
        costs.append(cost(goal, unit, metrics, words, book))
    assert all(b <= a for a, b in pairwise(costs))
    assert costs[-1] < 0.9 * costs[0]


def test_a_codeword_is_the_least_squares_of_those_that_chose_it():
    goal, unit, metrics, words = coupled(signed=True, k=1, outputs=50)
    book = expected(goal, unit, metrics, words, 1, 0)
    rows, right = [], []
    for weight, metric in zip(goal.view(5, 4, 50), metrics, strict=True):
        root = torch.linalg.cholesky(metric).T
        choice = words.choose(weight, metric, unit)
        for o in range(50):
            signs = torch.where(choice.negative[:, o], -unit[o], unit[o])
            rows.append(root * signs)
            right.append(root @ weight[:, o])
    want = torch.linalg.lstsq(torch.cat(rows), torch.cat(right)[:, None]).solution[:, 0]
    torch.testing.assert_close(book[0], want)


def test_codewords_that_nobody_chooses_stay():
    goal, unit, metrics, words = coupled(signed=False)
    far = torch.cat([words.book, torch.full((1, 4), 1e6, dtype=torch.float64)])
    found = expected(goal, unit, metrics, Codewords(far, signed=False), 3, 0)
    assert torch.equal(found[-1], far[-1]) and not torch.equal(found[:-1], far[:-1])


def test_a_round_that_raises_the_cost_is_the_last_and_is_undone(monkeypatch):
    goal, unit, metrics, words = coupled(signed=False)
    rounds = []

    def worse(curves, pulls, book):
        rounds.append(book)
        return 100 * book

    monkeypatch.setattr(start, "_fitted", worse)
    assert torch.equal(expected(goal, unit, metrics, words, 5, 0), words.book)
    assert len(rounds) == 1
