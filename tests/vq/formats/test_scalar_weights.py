"""Scalar weights: gradients, grids that follow or stay, and the very bits that are stored."""

import pytest
import torch
from torch import nn

import vq
from vq import Int4, Int8, Recipe
from vq.formats.grids import Grid, range_grid
from vq.formats.model import compressed_layers
from vq.formats.scalar_weights import ScalarWeight, rounded


def test_the_gradient_passes_straight_through():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16, bias=False))
    vq.compress_(model, Recipe({"0": Int8()}))
    (layer,) = compressed_layers(model)
    grad = torch.randn(16, 32)
    layer.module.weight.backward(grad)
    torch.testing.assert_close(layer.originals[0].grad, grad)


@pytest.mark.parametrize("follows", [True, False])
def test_scales_of_int8_follow_the_weight_or_stay(follows):
    g = Int8().geometry("a", "linear", (3, 8))
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    module = ScalarWeight(g, weight, None if follows else range_grid(weight, g))
    assert module.to_layer("a", weight).scale == pytest.approx(weight.abs().amax(1) / 127)
    twice = module(2 * weight)
    if follows:
        assert torch.equal(twice, 2 * module(weight))
    else:
        assert torch.equal(twice.abs().amax(1), module(weight).abs().amax(1))  # saturated


@pytest.mark.parametrize("kind", [Int8(), Int4(group=4)], ids=str)
def test_no_weight_is_a_negative_zero(kind):
    g = kind.geometry("a", "linear", (1, 4))
    weight = torch.tensor([[1.0, -1e-6, 1e-6, -1.0]])
    for module in (rounded(g, weight), ScalarWeight(g, weight, range_grid(weight, g))):
        decoded = module(weight)
        assert not torch.signbit(decoded[decoded == 0]).any()


def test_the_layer_takes_the_name_it_is_given():
    g = Int8().geometry("a", "linear", (2, 4))
    layer = ScalarWeight(g, torch.ones(2, 4), Grid(torch.ones(2, 1), None)).to_layer(
        "b", torch.ones(2, 4)
    )
    assert layer.geometry.name == "b" and layer.scale.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [vq.Int8(), vq.Int4(group=16), vq.VQ(d=4, k=8)], ids=str)
def test_models_in_half_precision_keep_their_dtype(tmp_path, method, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16)).to(dtype)
    vq.compress_(model, vq.Recipe({"*": method}))
    assert model[0].weight.dtype == dtype
    vq.save(model, tmp_path / "x")
    same = vq.load(tmp_path / "x", into=nn.Sequential(nn.Linear(32, 16)).to(dtype))
    assert torch.equal(same[0].weight, model[0].weight)
