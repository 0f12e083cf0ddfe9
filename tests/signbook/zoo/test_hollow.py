"""Models without values."""

import pytest
import torch
from torch import nn

from signbook.zoo.hollow import without_values


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)


def test_parameters_are_on_the_meta_device_and_buffers_are_not():
    with without_values():
        net = Net()
    assert all(p.is_meta and p.requires_grad for p in net.parameters())
    assert net.head.weight is net.embed.weight
    assert torch.equal(net.norm.running_var, torch.ones(4))
    assert not any(p.is_meta for p in Net().parameters())


def test_what_fails_leaves_no_trace():
    with pytest.raises(TypeError), without_values():
        nn.Linear("a", "b")
    assert not nn.Linear(2, 2).weight.is_meta
