"""Weights as sub-vectors, and what of these is filling."""

import torch
from torch import nn

import vq
from vq.formats.model import compressed_layers
from vq.learning.rules.points import cut, real


def test_cut_is_in_the_order_of_the_indices_and_in_units():
    model = nn.Sequential(nn.Linear(10, 4))
    vq.compress_(model, vq.Recipe({"0": vq.VQ(d=4, k=4, scale="output")}))
    layer = next(compressed_layers(model))
    weight, codebook = model[0].weight, layer.codebook
    points = cut(weight, layer, layer.weight.unit)
    counts = real(layer)
    words = layer.weight.codewords(codebook)[layer.weight.indices.long()]
    torch.testing.assert_close(points, words * counts)
    assert counts.shape == points.shape and counts.sum() == 40  # 4 x 10 weights in 12 sub-vectors
    assert torch.equal(cut(weight, layer), cut(weight, layer, torch.ones(4)))


def test_without_filling_all_count():
    model = nn.Sequential(nn.Conv2d(8, 4, 3))
    vq.compress_(model, vq.Recipe({"0": vq.SSVQ(d=4, k=4)}))
    counts = real(next(compressed_layers(model)))
    assert counts.shape == () and counts == 1
