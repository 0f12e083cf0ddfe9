"""The order of the stream, against a drawing and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.container import order

from .naive import walk
from .samples import PROPERTY

SIDES = st.integers(1, 20)


def test_stream_order_by_hand():
    #        input 0  1  2
    # output 0     0  2  4    first block of two outputs: outputs innermost, then inputs
    # output 1     1  3  5
    # output 2     6  7  8    second block, ragged: one output
    matrix = np.array([[0, 2, 4], [1, 3, 5], [6, 7, 8]])
    assert order.to_stream(matrix, 2).tolist() == list(range(9))


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 2**47])
def test_tile_by_tile(tile: int):
    grid = np.arange(15).reshape(3, 5)
    want = [grid[r, c] for r, c in walk(3, 5, tile)]
    assert order.to_stream(grid, tile).tolist() == want


def test_the_largest_tile_does_not_overflow():
    grid = np.zeros((2, 1024, 64), np.int8)  # tile × columns × d is past 2**63
    stream = order.to_stream(grid, 2**48 - 1)
    assert order.from_stream(stream, 2, 1024, 2**48 - 1).shape == grid.shape


@PROPERTY
@given(
    SIDES,
    SIDES,
    st.integers(1, 24),
    st.sampled_from(((), (1,), (2,), (3,), (4,), (8,), (2, 2))),
    st.sampled_from((np.int8, np.uint16, np.float32, np.int64)),
    st.booleans(),
)
def test_stream_order_comes_back(
    rows: int, columns: int, tile: int, item: tuple[int, ...], kind: type, transposed: bool
):
    grid = np.arange(rows * columns * math.prod(item)).astype(kind).reshape(rows, columns, *item)
    if transposed:  # the bytes of an item are not neighbours
        grid = np.asfortranarray(grid)
    stream = order.to_stream(grid, tile)
    assert stream.dtype == kind
    assert stream.tolist() == [grid[at].tolist() for at in walk(rows, columns, tile)]
    for given_stream in (stream, np.asfortranarray(stream)):
        back = order.from_stream(given_stream, rows, columns, tile)
        assert back.dtype == kind
        assert np.array_equal(back, grid)


@PROPERTY
@given(SIDES, SIDES, st.integers(1, 24), st.sampled_from(("in", "out", "kernel")))
def test_split_comes_back(outputs: int, inputs: int, d: int, axis: str):
    matrix = np.arange(1, outputs * inputs + 1).reshape(outputs, inputs)
    grid = order.split(matrix, d, axis)
    assert np.array_equal(order.join(grid, matrix.shape, axis), matrix)
    assert np.count_nonzero(grid) == matrix.size  # the filling is zero
    r, c = grid.shape[0] - 1, grid.shape[1] - 1
    first = matrix[r * d, c] if axis == "out" else matrix[r, c * d]
    assert grid[r, c, 0] == first


def test_convolution_has_channels_innermost():
    weight = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)  # [O, C, y, x]
    matrix = order.to_matrix(weight)
    for o, c, y, x in np.ndindex(weight.shape):
        assert matrix[o, (y * 2 + x) * 3 + c] == weight[o, c, y, x]
    assert np.array_equal(order.from_matrix(matrix, weight.shape), weight)


def test_kernel_axis_has_taps_innermost():
    weight = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)  # [O, C, y, x]
    matrix = order.to_matrix(weight, "kernel")
    for o, c, y, x in np.ndindex(weight.shape):
        assert matrix[o, c * 4 + y * 2 + x] == weight[o, c, y, x]
    assert np.array_equal(order.from_matrix(matrix, weight.shape, "kernel"), weight)
