"""What depends on what is followed through functions, methods and changes in place."""

import torch
from torch import nn

from vq.calibration.dependence import dependence


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Linear(1, 4)
        self.image = nn.Linear(4, 4)
        self.zero = nn.Linear(4, 4)
        self.twice = nn.Tanh()
        self.apart = nn.Identity()
        self.idle = nn.Linear(1, 1)

    def forward(self, x, step):
        when = self.twice(self.time((step / 1000)[:, None]))
        nn.init.zeros_(self.zero.weight)
        y = self.image(self.twice(x))
        z = torch.zeros_like(y)
        z[:, :2] = when[:, :2]
        y += self.zero(z)
        return {"out": [self.apart(y)]}


def test_every_module_says_what_it_reads_and_gives():
    model = Mixed()
    found = dependence(model, (torch.randn(2, 4), torch.tensor([1, 2])), ("x", "t"))
    assert found.gives["time"] == [{"t"}] and found.reads["image"] == [{"x"}]
    assert found.gives["twice"] == [{"t"}, {"x"}]
    assert found.gives["zero"] == [{"x", "t"}]  # zeros_like(y) is made of y
    assert found.gives["apart"] == found.gives[""] == [{"x", "t"}]
    assert found.output == {"x", "t"} and "idle" not in found.gives
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_behind_a_source_only_the_source_counts():
    inputs = (torch.randn(2, 4), torch.tensor([1, 2]))
    found = dependence(Mixed(), inputs, ("x", "t"), ["time", "idle"])
    assert found.gives["time"] == [{"t"}] and found.output == {"x", "time"}
