"""A network with blocks that is trained, and data."""

import copy
from functools import cache

import torch
from torch import nn

import vq
from tests.vq.models import batches


class Residual(nn.Module):
    """A stem, two blocks and a head; gives logits."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(16, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
            for _ in range(2)
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


@cache
def _trained():
    torch.manual_seed(0)
    network = Residual()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for x, y in 15 * batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval().requires_grad_(True)


def pair(kind):
    """The network with its blocks compressed, and the original."""
    teacher = copy.deepcopy(_trained())
    model = copy.deepcopy(teacher)
    vq.compress_(model, vq.Recipe({"blocks.*": kind}))
    return model, teacher


def inputs():
    return [x for x, _ in batches()]


def distance(model, teacher):
    """Mean squared error of the logits on data that no training sees."""
    with torch.no_grad():
        return sum((model(x) - teacher(x)).square().mean().item() for x, _ in batches(4, seed=9))
