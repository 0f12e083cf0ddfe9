"""A model whose outputs are known, and labelled inputs for it."""

import torch
from torch import nn

from signbook.tasks import Classification


class Table(nn.Module):
    """A model whose output is known: row ``i`` of a table for input ``i``."""

    def __init__(self, rows, wrap=lambda x: x):
        super().__init__()
        self.rows = nn.Parameter(torch.as_tensor(rows, dtype=torch.float32))
        self.wrap = wrap

    def forward(self, index):
        assert not self.training
        return self.wrap(self.rows[index])


def classes(count=5, parts=(2, 3)):
    labels = torch.arange(count) % 3
    starts = torch.arange(count).split(parts)
    return Classification(list(zip(starts, labels.split(parts), strict=True)))
