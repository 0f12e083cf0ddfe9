"""Scales and indices for a codebook that is given."""

import numpy as np
import pytest
import torch

from vq import SSVQ, VQ
from vq.clustering.cluster import KMeans
from vq.formats.codebook_weights import PlainVQ, SignSplit
from vq.formats.format import Original
from vq.formats.integers import book_step
from vq.formats.starts import fit

RNG = np.random.default_rng(0)
BOOK = RNG.integers(0, 128, (32, 4)).astype(np.int8)
STEP = float(book_step(torch.from_numpy(BOOK).float()))


def original(weight, kind=VQ, importance=None, **settings):
    g = kind(d=4, k=32, **settings).geometry("a", "linear", tuple(weight.shape))
    return Original(g, weight, importance, g.scales > 1)


def decoded(layer, start, kind=PlainVQ):
    return kind(layer.geometry, layer.weight, start).approximation(layer.weight)


def error(layer, start, kind=PlainVQ):
    return float((decoded(layer, start, kind) - layer.weight).square().sum())


@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("scale", ["layer", "output"])
def test_a_weight_made_of_the_codebook_is_found_again(axis, scale):
    indices = torch.from_numpy(RNG.integers(0, 32, 16 * 16))
    words = torch.from_numpy(BOOK).float()[indices].reshape(-1, 16, 4)
    matrix = words.swapaxes(1, 2).reshape(64, 16) if axis == "out" else words.reshape(16, 64)
    scales = torch.tensor([0.0173])
    if scale == "output":
        scales = torch.exp(torch.randn(len(matrix), generator=torch.Generator().manual_seed(0)) / 9)
    layer = original(matrix * scales[:, None], axis=axis, scale=scale)
    start = fit(layer, BOOK, KMeans(), magnitudes=False)
    torch.testing.assert_close(start.unit * STEP, scales, rtol=1e-5, atol=0)
    assert error(layer, start) < 1e-8 * float(layer.weight.square().sum())


def test_no_scale_of_a_grid_is_better():
    layer = original(torch.randn(48, 64, generator=torch.Generator().manual_seed(1)), SSVQ)
    start = fit(layer, BOOK, KMeans(), magnitudes=True)
    found = error(layer, start, SignSplit)
    points = layer.weight.abs().reshape(-1, 4).numpy()
    errors = []
    for factor in np.linspace(0.5, 1.5, 41):
        words = BOOK * np.float32(float(start.unit) * STEP * factor)
        errors.append(KMeans().nearest(points, words, None)[1].sum(dtype=np.float64))
    assert found <= min(errors) * 1.01


def test_ragged_layers_and_importance():
    weight = torch.randn(10, 30, generator=torch.Generator().manual_seed(2))
    importance = torch.ones_like(weight)
    importance[:, 15:] = 1e-4
    plain, weighed = original(weight), original(weight, importance=importance)
    ends = []
    for layer in (plain, weighed):
        start = fit(layer, BOOK - np.int8(64), KMeans(), magnitudes=False)
        ends.append(float((decoded(layer, start) - weight)[:, :15].square().sum()))
    assert ends[1] < ends[0]


@pytest.mark.parametrize("scale", ["layer", "output"])
def test_silent_outputs_stay_silent(scale):
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    weight[3] = 0
    for layer in (original(weight, scale=scale), original(torch.zeros(8, 16), scale=scale)):
        start = fit(layer, np.maximum(BOOK, 1), KMeans(), magnitudes=False)
        found = decoded(layer, start)
        assert bool(torch.isfinite(found).all())
        if scale == "output" or not layer.weight.any():
            assert found[3].abs().max() < 1e-20
