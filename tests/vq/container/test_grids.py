"""Rounding with numpy gives what rounding by a recipe gives, bit for bit."""

import numpy as np
import pytest
import torch

from vq import Int2, Int4, Int8
from vq.container import Layer
from vq.container.grids import round_to_levels
from vq.container.order import spread
from vq.errors import WeightError
from vq.formats.scalar_weights import rounded

KINDS = [Int8(), Int4(group=7), Int2(group=100)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_as_by_a_recipe(kind):
    matrix = np.random.default_rng(0).standard_normal((9, 30)).astype(np.float32)
    matrix[2] = 0
    g = kind.geometry("a", "linear", (9, 30))
    integers, scale = round_to_levels(matrix, g)
    mine = Layer.scalar(g, integers, scale)
    weight = torch.from_numpy(matrix)
    theirs = rounded(g, weight).to_layer("a", weight)
    assert mine.geometry == theirs.geometry == g
    for field in ("stream", "scale", "group_scales"):
        assert np.array_equal(getattr(mine, field), getattr(theirs, field)), field


def test_too_large_for_fp16():
    g = Int4().geometry("a", "linear", (1, 2))
    with pytest.raises(WeightError, match=r"^layer 'a': weights must be at most 491280 for the fp"):
        round_to_levels(np.float32([[1e6, 0]]), g)


def test_spreading_by_hand():
    g = Int4(group=2).geometry("a", "linear", (2, 5))
    assert spread(np.array([[1, 2, 3], [4, 5, 6]]), g).tolist() == [
        [1, 1, 2, 2, 3],
        [4, 4, 5, 5, 6],
    ]
