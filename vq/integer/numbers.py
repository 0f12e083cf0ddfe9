"""From what a step of an accumulator is worth to the integers that requantise it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vq.integer.fixed import ACCUMULATOR_MAX, to_fixed
from vq.integer.golden import Parameters

__all__ = ["with_numbers"]

F64 = NDArray[np.float64]


def with_numbers(
    products: Parameters,
    most: NDArray[np.int64],
    unit: F64,
    bias: F64,
    step: float,
    *,
    beyond: int = 512,
) -> Parameters:
    """Weights with multipliers, shifts and biases.

    The real output is ``unit * accumulator + bias``. Where a norm all but silences an output,
    ``unit`` is raised so far that the bias fits the accumulator: the output moves by less than one
    step.

    Parameters
    ----------
    products : Parameters
        Weights, and the scales of their groups.
    most : [O] int64
        What sums of products can reach (:func:`vq.integer.golden.reach`): less than int32 can hold.
    unit : [O] float64
        What one step of the accumulator is worth.
    bias : [O] float64
        Real.
    step : float
        What one step of the output is worth.
    beyond : int
        A bias of so many steps of the output saturates it, whatever the products are.

    Raises
    ------
    ValueError
        If a step of the accumulator is too much of a step of the output for a multiplier.
    """
    room = ACCUMULATOR_MAX - most
    # Beyond this the output saturates whatever the accumulator is; room stays for the products.
    floor = np.minimum(np.abs(bias), beyond * step) / room
    sign = np.where(unit < 0, -1.0, 1.0)
    unit = sign * np.maximum(np.abs(unit), np.maximum(floor, 1e-300))
    with np.errstate(over="ignore"):  # a bias that is too large is cut off
        steps = np.clip(np.rint(bias / unit), -room, room)
    multiplier, shift = to_fixed(unit / step)
    return replace(products, multiplier=multiplier, shift=shift, bias=steps.astype(np.int32))
