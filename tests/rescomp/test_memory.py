"""What whole models need while they are quantised, counted storage by storage."""

import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rescomp import GPTAQR, quantize_

WIDTH, INNER, TOKENS, BATCHES = 64, 1024, 300, 4
BLOCK = 4 * (2 * WIDTH * INNER + WIDTH + INNER)


class Peak(TorchDispatchMode):
    """Counts the bytes of all storages that live, and the most there were since ``start``."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor.untyped_storage())
        return found

    def count(self, storage):
        if storage not in self.known:
            size = storage.nbytes()
            self.known[storage] = size
            weakref.finalize(storage, self.drop, size)
            self.now += size
            self.most = max(self.most, self.now)

    def drop(self, size):
        self.now -= size


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


def over_the_model(blocks):
    """Bytes at the peak beyond those of the model before and its data."""
    with Peak() as peak:
        torch.manual_seed(0)
        model = nn.Sequential(*[Block() for _ in range(blocks)])
        data = [torch.randn(TOKENS, WIDTH) for _ in range(BATCHES)]
        peak.most = before = peak.now
        quantize_(model, data, 4, GPTAQR())
    return peak.most - before


@pytest.mark.filterwarnings("ignore:layer .* statistics should hold a token")
def test_memory_is_that_of_a_block_and_its_solver():
    few, many = over_the_model(2), over_the_model(6)
    streams = 2 * 4 * TOKENS * BATCHES * WIDTH
    inside = 4 * TOKENS * (2 * WIDTH + 3 * INNER)  # of one batch
    square = 4 * INNER**2  # the statistics are two, a matrix in float64 is two more
    assert few < 2 * BLOCK + streams + inside + 6 * square
    assert many - few < 0.1 * BLOCK  # scales of finished layers
