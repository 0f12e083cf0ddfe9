"""SDE, its controls, and the order of errors that a wider band gives."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.rescomp.models import chain, vectors
from vq.learning.observed import Observed, block_error
from vq.methods.lsi import lsi_
from vq.methods.lwc import lwc_
from vq.methods.sde import sde_

RECIPE = vq.Recipe({"*": vq.Int2(group=8, zeros=True)})


def learnt(method, **settings):
    model = chain().eval()
    settings = {"epochs": 1, "held_out": 0, "progress": False} | settings
    return model, method(model, vectors(4, rows=32), RECIPE, **settings)


def same(a, b):
    return all(torch.equal(x.weight, y.weight) for x, y in ((a[0], b[0]), (a[4], b[4])))


def test_a_band_of_width_0_is_lsi():
    (ours, mine), (other, theirs) = learnt(sde_, width=0), learnt(lsi_)
    assert same(ours, other) and mine == theirs
    (ours, _), (other, _) = learnt(sde_, width=0, corner=3), learnt(lsi_, corner=3)
    assert same(ours, other)


def test_controls_have_equal_counts():
    band, drawn = (learnt(sde_, width=2, random=seed)[1] for seed in (None, 1))
    full = learnt(sde_, full=True, clip=None)[1]
    counts = [[layer.trained for layer in one.layers] for one in (band, drawn, full)]
    assert counts[0] == counts[1]
    assert counts[2] == [layer.geometry.weights for layer in full.layers]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(32), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        return x + self.down(torch.nn.functional.silu(self.up(self.norm(x))))


@pytest.fixture(scope="module")
def trained():
    """Residual network that has learnt the step of a chaotic map, with data like that."""
    torch.manual_seed(0)
    mix = torch.randn(32, 32) / 32**0.5
    model = nn.Sequential(*[Block() for _ in range(3)])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(300):
        x = torch.randn(64, 32)
        loss = nn.functional.mse_loss(model(x), torch.sin(2 * x @ mix) + x.roll(1, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), [torch.randn(128, 32) for _ in range(16)]


@pytest.mark.slow
@torch.no_grad()
def test_errors_fall_with_what_is_free_to_move(trained):
    model, data = trained
    recipe = vq.Recipe({"*": vq.Int2(group=32, zeros=True)})

    def rounded(model, data, recipe, **settings):
        vq.compress_(model, recipe, progress=False)

    def error(method, **settings):
        quantised = copy.deepcopy(model)
        method(quantised, data, recipe, progress=False, **settings)
        both = (Observed(one, ["0", "1", "2"]) for one in (quantised, model))
        return float(block_error(*(one(torch.cat(data)) for one in both), relative=True))

    found = [error(rounded), error(lwc_), error(lsi_)]
    found += [error(sde_, width=width) for width in (4, 16)]
    assert found == sorted(found, reverse=True), found
    assert found[-1] < 0.8 * found[2]
