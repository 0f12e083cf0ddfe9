"""Models that tell what their blocks give, and how far that is from a teacher's."""

import pytest
import torch
from torch import nn

import vq
from vq.errors import ConfigError
from vq.learning.observed import Observed, Seen, block_error, blocks_of


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(3)
        )
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 2))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def model(*keys):
    torch.manual_seed(0)
    made = Residual()
    vq.compress_(made, vq.Recipe(dict.fromkeys(keys, vq.VQ(d=2, k=4))))
    return made


def test_blocks_are_the_outermost_children_with_compressed_layers():
    assert blocks_of(model("blocks.*")) == ["blocks.0", "blocks.1", "blocks.2"]
    assert blocks_of(model("blocks.1.*", "head.1")) == ["blocks.1", "head.1"]
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    vq.compress_(plain, vq.Recipe({"*": vq.VQ(d=2, k=4)}))
    assert blocks_of(plain) == ["0", "2"]
    assert blocks_of(model("stem")) == ["stem"]


def test_what_blocks_give_is_seen_with_gradients_and_nothing_is_left_behind():
    network = model("blocks.*")
    x = torch.randn(5, 6)
    seen = Observed(network, ["blocks.0", "blocks.2"])(x)
    assert torch.equal(seen.outputs, network(x))
    assert [len(block) for block in seen.blocks] == [1, 1]
    hidden = network.stem(x)
    assert torch.equal(seen.blocks[0][0], network.blocks[0](hidden))
    assert seen.blocks[1][0].requires_grad
    assert not any(module._forward_hooks for module in network.modules())
    with pytest.raises(RuntimeError):
        Observed(network, ["blocks.0"])(torch.randn(5, 7))
    assert not any(module._forward_hooks for module in network.modules())


def test_the_error_is_the_mean_over_blocks():
    a = Seen(None, [[torch.tensor([1.0, 3.0])], [torch.tensor([0.0, 0.0])]])
    b = Seen(None, [[torch.tensor([1.0, 1.0])], [torch.tensor([4.0, 0.0])]])
    assert block_error(a, b, relative=False) == 5  # (2 + 8) / 2
    assert block_error(a, a, relative=True) == 0
    c = Seen(None, [[torch.tensor([2.0, 4.0])], [torch.tensor([4.0, 0.0])]])
    assert block_error(a, c, relative=True) == pytest.approx((1 / 2 + 8 / 8) / 2)
    with pytest.raises(ConfigError, match="must run the same blocks, not 2 and 1 of them"):
        block_error(a, Seen(None, b.blocks[:1]), relative=False)
    with pytest.raises(ConfigError, match="must run the same blocks"):
        block_error(Seen(None, []), Seen(None, []), relative=False)


def test_an_observed_model_learns_from_its_teachers_blocks():
    torch.manual_seed(0)
    teacher = Residual()
    network = model("blocks.*")
    names = blocks_of(network)
    data = list(torch.randn(4, 16, 6))
    result = vq.finetune_(
        Observed(network, names),
        data,
        epochs=10,
        teacher=Observed(teacher, names),
        distillation=vq.Distillation(
            weight=1, loss=lambda seen, wanted: block_error(seen, wanted, relative=True)
        ),
    )
    assert result.losses[-1] < 0.6 * result.losses[0]
