"""Multiplication by a real number as hardware does it: a 16-bit multiplier and a right shift."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACCUMULATOR_MAX", "MULTIPLIER_MAX", "SHIFT_MAX", "requantize", "to_fixed"]

#: Largest magnitude of an accumulator: a symmetric int32.
ACCUMULATOR_MAX = 2**31 - 1
#: Largest magnitude of a multiplier: a symmetric int16, one hardware multiplier of 32 x 16 bits.
MULTIPLIER_MAX = 2**15 - 1
#: Largest right shift. Product and rounding term then fit 48 bits, signed.
SHIFT_MAX = 47


def to_fixed(
    ratio: NDArray[np.float64], *, shared: bool = False
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Write real numbers as ``multiplier / 2**shift``.

    The multiplier takes as many bits as it can, so the relative error is at most 2**-15 from
    2**-33 upwards; below that the absolute error is at most 2**-48.

    Parameters
    ----------
    ratio : [n] float64
        Finite, of magnitude at most ``MULTIPLIER_MAX / 2``.
    shared : bool
        One shift for all: that which the greatest magnitude needs.

    Returns
    -------
    multiplier : [n] int16, ``-MULTIPLIER_MAX`` to ``MULTIPLIER_MAX``
    shift : [n] uint8, 1 to ``SHIFT_MAX``; [1] if ``shared``

    Raises
    ------
    ValueError
        If a ratio is not finite or too large.

    Examples
    --------
    >>> multiplier, shift = to_fixed(np.array([0.75, -2.0**-40]))
    >>> multiplier.tolist(), shift.tolist()
    ([24576, -128], [15, 47])
    """
    magnitude = np.abs(ratio)
    if not (magnitude <= MULTIPLIER_MAX / 2).all():  # false for NaN
        raise ValueError(f"ratio must be finite and at most {MULTIPLIER_MAX / 2}")
    measured = magnitude.max(keepdims=True) if shared else magnitude
    # ratio = m * 2**e with m in [0.5, 1): the shift 15 - e gives 2**14 <= multiplier <= 2**15.
    shift = np.clip(15 - np.frexp(measured)[1], 1, SHIFT_MAX)
    shift = np.where(measured == 0, 1, shift)
    rounded_up = np.rint(np.ldexp(measured, shift)) > MULTIPLIER_MAX
    shift = np.where(rounded_up & (shift > 1), shift - 1, shift)
    multiplier = np.rint(np.ldexp(ratio, shift))
    return multiplier.astype(np.int16), shift.astype(np.uint8)


def requantize(
    accumulator: NDArray[np.int64],
    multiplier: NDArray[np.int16],
    shift: NDArray[np.uint8],
    *,
    relu: bool = False,
) -> NDArray[np.int8]:
    """Scale, round half up, saturate: ``clamp((a * m + 2**(s - 1)) >> s)``.

    Parameters
    ----------
    accumulator : int64, magnitude at most 2**31 - 1
    multiplier : int16 that broadcasts to it
    shift : uint8 that broadcasts to it, 1 to ``SHIFT_MAX``
        The shift is arithmetic: it rounds towards minus infinity.
    relu : bool
        Saturate to 0 … 127 instead of -128 … 127.

    Examples
    --------
    >>> half = np.array([2**14], np.int16), np.array([15], np.uint8)
    >>> requantize(np.array([3, -3, 1000, -1000]), *half).tolist()
    [2, -1, 127, -128]
    """
    s = shift.astype(np.int64)
    value = accumulator * multiplier.astype(np.int64)
    value += np.int64(1) << (s - 1)
    value >>= s
    return np.clip(value, 0 if relu else -128, 127, out=value).astype(np.int8)
