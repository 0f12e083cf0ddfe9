"""Layers whose weights have a scale per group of inputs: sums of groups, each brought to one size.

The scale of a group is a 16-bit number relative to its output, times a power of two of the layer:
``accumulator += (partial * scale + 2**shift / 2) >> shift``.
"""

import math

import numpy as np
from numpy.typing import NDArray

from vq.integer.fixed import MULTIPLIER_MAX

__all__ = ["GROUP_SHIFT_MAX", "inputs_of_groups", "partial_reach", "reach", "rescale", "to_groups"]

#: Largest right shift of the sum of a group.
GROUP_SHIFT_MAX = 31
#: What the sums that :func:`to_groups` makes do not exceed. An eighth of an accumulator is as
#: precise as any int8 output needs, and leaves room for biases larger than all products.
_REACH = 2**28

I8 = NDArray[np.int8]
I64 = NDArray[np.int64]


def inputs_of_groups(shape: tuple[int, ...], group: int) -> list[NDArray[np.intp]]:
    """Places that each group has among the inputs of an output.

    A weight ``[O, C, *taps]`` of ``shape`` has its inputs at ``channel * taps + tap``; groups run
    along ``tap * C + channel``, as the columns of the container's matrix do.
    """
    channels, taps = shape[1], math.prod(shape[2:])
    places = np.arange(channels * taps).reshape(channels, taps).T.reshape(-1)
    return [places[at : at + group] for at in range(0, len(places), group)]


def partial_reach(weight: I8, group: int) -> I64:
    """Largest magnitude that the sum of each group can have, [O, groups] int64."""
    flat = np.abs(weight.reshape(len(weight), -1).astype(np.int64))
    parts = inputs_of_groups(weight.shape, group)
    return np.stack([128 * flat[:, part].sum(axis=1) for part in parts], axis=1)


def rescale(partial: I64, scale: NDArray[np.int16], shift: int) -> I64:
    """Bring sums of groups to the size of their output: a product, a shift that rounds half up.

    >>> rescale(np.array([3, -3, 5]), np.array([2, 2, 2], np.int16), 2).tolist()
    [2, -1, 3]
    """
    value: I64 = partial * scale.astype(np.int64)
    value += (1 << shift) >> 1
    value >>= shift
    return value


def to_groups(
    scale: NDArray[np.float64], partial: I64
) -> tuple[NDArray[np.int16], int, NDArray[np.float64]]:
    """Write the scales of a layer's groups as 16-bit numbers.

    The greatest scale of an output becomes ``MULTIPLIER_MAX``; groups that are all zero do not
    count. The shift is the least with which no output's products can add up to more than 2**28.

    Parameters
    ----------
    scale : [O, groups] float64
    partial : [O, groups] int64
        From :func:`partial_reach`.

    Returns
    -------
    scale : [O, groups] int16
    shift : int
        0 to ``GROUP_SHIFT_MAX``.
    unit : [O] float64
        Scale of the rescaled sums: what 1 of them is worth where an input of 1 is worth 1.
    """
    used = np.where(partial > 0, scale, 0.0)
    most = np.abs(used).max(axis=1)
    step = np.where(most > 0, most, 1.0) / MULTIPLIER_MAX
    numbers = np.rint(used / step[:, None]).astype(np.int16)
    shift = 0
    while shift < GROUP_SHIFT_MAX and reach(numbers, shift, partial).max() > _REACH:
        shift += 1
    return numbers, shift, step * 2.0**shift


def reach(scale: NDArray[np.int16], shift: int, partial: I64) -> I64:
    """Largest magnitude that the rescaled sums of each output can add up to, [O] int64."""
    # Rounding half up turns -n into no more than it turns n into.
    most: I64 = rescale(partial, np.abs(scale), shift).sum(axis=1)
    return most
