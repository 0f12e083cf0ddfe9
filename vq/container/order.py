"""The order in which the sub-vectors of a weight matrix enter its stream.

A matrix ``[O, I]`` is cut into a grid of sub-vectors ``[Go, Gi, d]``. The stream visits the grid
in blocks of rows; inside a block it walks along ``Gi``; the rows of the block are innermost. An
array of ``C`` output columns is thus fed all its columns before the input index advances.
"""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vq.container.geometry import Geometry

__all__ = ["from_matrix", "from_stream", "join", "split", "spread", "to_matrix", "to_stream"]

Scalar = TypeVar("Scalar", bound=np.generic)


def to_matrix(weight: NDArray[Scalar], axis: str = "in") -> NDArray[Scalar]:
    """Lay out a weight tensor ``[O, C, *taps]`` as a matrix [O, I].

    Channels are innermost in ``I``, or taps if ``axis`` is "kernel".
    """
    if axis != "kernel":
        weight = np.moveaxis(weight, 1, -1)
    return weight.reshape(len(weight), -1)


def from_matrix(
    matrix: NDArray[Scalar], shape: tuple[int, ...], axis: str = "in"
) -> NDArray[Scalar]:
    """Undo :func:`to_matrix` for a weight tensor of ``shape``, ``[O, C, *taps]``."""
    if axis == "kernel":
        return matrix.reshape(shape)
    outputs, channels, *taps = shape
    return np.moveaxis(matrix.reshape(outputs, *taps, channels), -1, 1)


def split(matrix: NDArray[Scalar], d: int, axis: str) -> NDArray[Scalar]:
    """Cut a matrix into sub-vectors of ``d`` weights; a ragged edge is filled with zeros.

    Parameters
    ----------
    matrix : [O, I]
    d : int
    axis : "in", "kernel" or "out"
        Whether a sub-vector holds ``d`` consecutive columns of one row, or ("out") ``d``
        consecutive rows of one column.

    Returns
    -------
    [O, ceil(I / d), d], or [ceil(O / d), I, d] for "out"
    """
    outputs, inputs = matrix.shape
    if axis == "out":
        groups = -(-outputs // d)
        if groups * d != outputs:
            matrix = np.pad(matrix, ((0, groups * d - outputs), (0, 0)))
        return matrix.reshape(groups, d, inputs).swapaxes(1, 2)
    groups = -(-inputs // d)
    if groups * d != inputs:
        matrix = np.pad(matrix, ((0, 0), (0, groups * d - inputs)))
    return matrix.reshape(outputs, groups, d)


def join(grid: NDArray[Scalar], shape: tuple[int, int], axis: str) -> NDArray[Scalar]:
    """Undo :func:`split`; the filling of a ragged edge is dropped."""
    outputs, inputs = shape
    if axis == "out":
        return grid.swapaxes(1, 2).reshape(-1, inputs)[:outputs]
    return grid.reshape(outputs, -1)[:, :inputs]


def spread(groups: NDArray[Scalar], g: Geometry) -> NDArray[Scalar]:
    """Give every weight what belongs to its group: [O, ceil(I / group)] to [O, I]."""
    return np.repeat(groups, g.group_width, axis=1)[:, : g.I]


def to_stream(grid: NDArray[Scalar], tile: int) -> NDArray[Scalar]:
    """Bring a grid [Go, Gi, ...] into stream order [Go * Gi, ...], blocks of ``tile`` rows."""
    rows, columns, *item = grid.shape
    stream = np.empty((rows * columns, *item), grid.dtype)
    blocks, rest = _in_blocks(_items(stream, 1), rows, columns, tile)
    source = _items(np.ascontiguousarray(grid), 2)
    whole = rows - rest.shape[1]
    blocks[...] = source[:whole].reshape(blocks.swapaxes(1, 2).shape).swapaxes(1, 2)
    rest[...] = source[whole:].swapaxes(0, 1)
    return stream


def from_stream(stream: NDArray[Scalar], rows: int, columns: int, tile: int) -> NDArray[Scalar]:
    """Undo :func:`to_stream`: [Go * Gi, ...] to [Go, Gi, ...]."""
    grid = np.empty((rows, columns, *stream.shape[1:]), stream.dtype)
    blocks, rest = _in_blocks(_items(np.ascontiguousarray(stream), 1), rows, columns, tile)
    target = _items(grid, 2)
    whole = rows - rest.shape[1]
    target[:whole].reshape(blocks.swapaxes(1, 2).shape)[...] = blocks.swapaxes(1, 2)
    target[whole:] = rest.swapaxes(0, 1)
    return grid


def _in_blocks(
    stream: NDArray[Any], rows: int, columns: int, tile: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of a stream: its whole blocks [n, Gi, tile, ...], and the last one if it is short."""
    tile = min(tile, max(rows, 1))
    count = rows // tile
    cut, item = count * tile * columns, stream.shape[1:]
    blocks = stream[:cut].reshape(count, columns, tile, *item)
    return blocks, stream[cut:].reshape(columns, rows - count * tile, *item)


def _items(array: NDArray[Any], axes: int) -> NDArray[Any]:
    """View the items behind the first ``axes`` axes as one number each, if there is one so large.

    numpy moves numbers several times faster than rows of a few bytes.
    """
    count = math.prod(array.shape[axes:])
    size = count * array.itemsize
    if array.ndim == axes or size not in (2, 4, 8):
        return array
    return array.reshape(*array.shape[:axes], count).view(f"u{size}")[..., 0]
