"""What a codebook starts as."""

import torch

from rescomp.codebooks.start import clustered
from vq import SSVQ, VQ

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


def test_inputs_weigh_by_their_energy():
    goal = torch.tensor([1.0, 0, 2, 0, 10, 0])[:, None].expand(6, 2).contiguous()
    energy = torch.tensor([3.0, 1, 1, 1, 1, 1])
    g = VQ(d=2, k=2).geometry("a", "linear", (2, 6))
    book = clustered(goal, torch.ones(2), energy, g, 25, 0)
    torch.testing.assert_close(sorted_rows(book), torch.tensor([[1.25, 0.0], [10.0, 0.0]]))


def test_equal_seeds_give_equal_codebooks():
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(64, 40, generator=generator)
    g = VQ(d=4, k=2).geometry("a", "linear", (40, 64))
    books = [clustered(goal, torch.ones(40), torch.ones(64), g, 5, seed) for seed in (0, 0, 1)]
    assert torch.equal(books[0], books[1]) and not torch.equal(books[0], books[2])
