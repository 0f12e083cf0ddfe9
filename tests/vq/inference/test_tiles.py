"""Tiles hold what the container holds, in another order, and give its bytes back."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.vq.container.samples import coded, samples
from tests.vq.inference.layers import FORMS
from vq.inference.tiles import FORMS as NAMES
from vq.inference.tiles import Tiling, pack, to_tiles, unpack


@settings(derandomize=True, deadline=None, max_examples=60)
@given(samples())
def test_any_layer_comes_back(sample):
    g = sample.layer.geometry
    tiles = pack(g, sample.layer.stream)
    assert tiles.dtype == np.uint8 and len(tiles) == Tiling.of(g).nbytes
    assert np.array_equal(unpack(g, tiles), sample.layer.stream)


def test_every_form_is_one_of_a_layer():
    assert {Tiling.of(make().layer.geometry).form for make in FORMS.values()} == set(NAMES)


@pytest.mark.parametrize("form", ["nibbles8", "bytes", "int8", "int4"])
def test_they_take_the_bytes_of_the_stream(form):
    """A layer without ragged edges."""
    sizes = {"nibbles8": (8, 16, 12), "bytes": (8, 256, 16)}
    if form in sizes:
        d, k, bits = sizes[form]
        t = Tiling.of(coded(shape=(64, 128), d=d, k=k).layer.geometry)
        assert t.form == form and t.nbytes == 64 * 128 // d * bits // 8
    else:
        bits = int(form[3:])
        t = Tiling(64, 128, 1, 0, bits, 0, 0, 32 if bits == 4 else 0)
        assert t.form == form and t.nbytes == 64 * 128 * bits // 8


def test_lanes_are_four_columns_of_a_row():
    """Two rows of five columns, vq of two codewords: one plane, two tiles."""
    grid = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 0, 0]])
    planes = to_tiles(Tiling(2, 5, 1, 2, 1, 0, 0, 0), grid, None).reshape(2, 8)
    assert planes.tolist() == [[0b0010_1001, *[0] * 7], [0b0000_0001, *[0] * 7]]
