"""The order in which the sub-vectors of a weight matrix enter its stream.

A matrix ``[O, I]`` is cut into a grid of sub-vectors ``[Go, Gi, d]``. The stream visits the grid
in blocks of rows; inside a block it walks along ``Gi``; the rows of the block are innermost. An
array of ``C`` output columns is thus fed all its columns before the input index advances.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_matrix", "from_stream", "join", "split", "to_matrix", "to_stream"]

Scalar = TypeVar("Scalar", bound=np.generic)


def to_matrix(weight: NDArray[Scalar], axis: str = "in") -> NDArray[Scalar]:
    """Lay out a weight tensor [O, C, *taps] as a matrix [O, I].

    Channels are innermost in ``I``, or taps if ``axis`` is "kernel".
    """
    if axis != "kernel":
        weight = np.moveaxis(weight, 1, -1)
    return weight.reshape(len(weight), -1)


def from_matrix(
    matrix: NDArray[Scalar], shape: tuple[int, ...], axis: str = "in"
) -> NDArray[Scalar]:
    """Undo :func:`to_matrix` for a weight tensor of ``shape`` [O, C, *taps]."""
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


def to_stream(grid: NDArray[Scalar], tile: int) -> NDArray[Scalar]:
    """Bring a grid [Go, Gi, ...] into stream order [Go * Gi, ...], blocks of ``tile`` rows."""
    tile = min(tile, max(len(grid), 1))
    whole = len(grid) // tile * tile
    blocks = grid[:whole].reshape(-1, tile, *grid.shape[1:]).swapaxes(1, 2)
    rest = grid[whole:].swapaxes(0, 1)
    item = grid.shape[2:]
    return np.concatenate([blocks.reshape(-1, *item), rest.reshape(-1, *item)])


def from_stream(stream: NDArray[Scalar], rows: int, columns: int, tile: int) -> NDArray[Scalar]:
    """Undo :func:`to_stream`: [Go * Gi, ...] to [Go, Gi, ...]."""
    item = stream.shape[1:]
    tile = min(tile, max(rows, 1))
    whole = rows // tile * tile
    grid = np.empty((rows, columns, *item), stream.dtype)
    blocks = stream[: whole * columns].reshape(-1, columns, tile, *item)
    grid[:whole] = blocks.swapaxes(1, 2).reshape(whole, columns, *item)
    if whole < rows:
        rest = stream[whole * columns :].reshape(columns, rows - whole, *item)
        grid[whole:] = rest.swapaxes(0, 1)
    return grid
