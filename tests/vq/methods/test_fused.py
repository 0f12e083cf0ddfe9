"""Fused linears taken apart: the same function, and a codebook for each part."""

import copy

import pytest
import torch
from torch import nn

import vq
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.methods.fused import split_fused_


class Attention(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=bias)
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("bias", [True, False])
def test_it_stays_the_same_and_each_part_has_a_codebook(tmp_path, bias):
    torch.manual_seed(0)
    model = nn.Sequential(Attention(bias), Attention(bias))
    before = copy.deepcopy(model)
    x = torch.randn(2, 5, 8)
    assert split_fused_(model) == ["0.qkv", "1.qkv"]
    torch.testing.assert_close(model(x), before(x))
    vq.compress_(model, vq.Recipe({"*.qkv.*": vq.VQ(d=2, k=4)}))
    names = [layer.weight.geometry.name for layer in compressed_layers(model)]
    assert names == [f"{i}.qkv.{part}" for i in range(2) for part in range(3)]
    vq.save(model, tmp_path / "m.vq.safetensors")
    split_fused_(before)
    loaded = vq.load(tmp_path / "m.vq.safetensors", into=before)
    assert torch.equal(loaded(x), model(x))


def test_what_is_not_fused_is_refused():
    model = nn.Sequential(Attention())
    for match, settings in {
        r"fused layers \*\.attn, x must be in the model, not none": {"names": ("*.attn", "x")},
        "layer '0.qkv' must be a linear with a multiple of 5 outputs": {"parts": 5},
        "layer '0' must be a linear with a multiple of 3 outputs": {"names": ("0",)},
    }.items():
        with pytest.raises(ConfigError, match=match):
            split_fused_(model, **settings)
    assert type(model[0].qkv) is nn.Linear
