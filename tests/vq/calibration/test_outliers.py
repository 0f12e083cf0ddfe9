"""Outlier tokens are those that stand out of their sequence, by how often they do."""

import torch
from torch import nn

import vq
from tests.processes import two_processes
from vq.calibration.outliers import outlier_tokens
from vq.recipe.selection import select

BIG = {7: 500.0, 9: 300.0, 2: 200.0}


class Bag(nn.Module):
    """Embedding, and a layer that reads it: some tokens are large."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.down = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.embed.weight.data.clamp_(-2, 2)
        for token, size in BIG.items():
            self.embed.weight.data[token, 3] = size

    def forward(self, input_ids, attention_mask=None):
        return self.down(self.embed(input_ids))


def layers(model):
    return select(model, vq.Recipe({"down": vq.Int4(group=4), "embed": None})).layers


ROWS = torch.tensor([
    [7, 1, 3, 9, 5, 9, 4, 4],
    [7, 7, 3, 3, 5, 5, 4, 9],
])  # fmt: skip


@torch.no_grad()
def test_the_most_frequent_are_given_without_the_first_place():
    model = Bag()
    # Three in a row, and three; 9 more often than 7, which stands first twice.
    assert outlier_tokens(model, [ROWS], layers(model)) == ([9, 7], 3)
    assert outlier_tokens(model, [ROWS, torch.ones_like(ROWS)], layers(model)) == ([9, 7], 2)
    assert outlier_tokens(model, [ROWS, *3 * [torch.ones_like(ROWS)]], layers(model)) == ([9], 1)
    assert outlier_tokens(model, [torch.ones_like(ROWS)], layers(model)) == ([], 0)
    assert outlier_tokens(model, [ROWS], layers(model), times=1e4) == ([], 0)


@torch.no_grad()
def test_padding_counts_nowhere():
    model, mask = Bag(), torch.ones_like(ROWS)
    mask[0, :3], mask[1, 6:] = 0, 0
    batch = {"input_ids": ROWS, "attention_mask": mask}
    # Left: 9 stands first in the first row, and again; 7 in the second, at places 0 and 1.
    assert outlier_tokens(model, [batch], layers(model)) == ([7, 9], 2)
    assert outlier_tokens(model, [(ROWS, None)], layers(model)) == ([9, 7], 3)


def worker(rank, folder):
    model = Bag()
    with torch.no_grad():
        found = outlier_tokens(model, [ROWS[rank::2]], layers(model))
    torch.save(found, folder / f"{rank}.pt")


def test_processes_count_together(tmp_path):
    folder = two_processes(worker, tmp_path)
    assert [torch.load(folder / f"{rank}.pt") for rank in (0, 1)] == 2 * [([9, 7], 3)]
