"""Arithmetic of rows: reciprocals, roots, softmax, norms, functions, rotations. Integers only.

Everything here is what a vector unit can do that passes over a row once or twice: one product of
32 by 16 bits per element, one division or square root per row, tables of 256 entries.
``docs/spec-integer-graph.md``, section 7, says the same in formulas.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BYTE", "EXP2", "NORM_BITS", "SHARE_BITS", "STREAM", "STREAM_MAX", "WIDE_MAX", "Rows",
    "exponentials", "interpolated", "lengths_of", "mean_of_rows", "normalised", "reciprocal",
    "rescaled", "rotated", "saturated", "shares", "to_rows",
]  # fmt: skip

#: The form of what the array multiplies by weights.
BYTE = "int8"
#: The form of sums along the residual stream of models with massive activations.
STREAM = "int32"
#: Largest magnitude of an int32 value.
STREAM_MAX = 2**27 - 1
#: Largest magnitude of an int16 value: two digits of int8, 256 * 127 + 127.
WIDE_MAX = 32639
#: A row over its deviation is in steps of 2**-NORM_BITS.
NORM_BITS = 18
#: Shares of attention that are int16 are in steps of 2**-SHARE_BITS.
SHARE_BITS = 14
#: What a mean is finer than its inputs, in bits.
_GUARD = 8
_ONE = 2**15

I64 = NDArray[np.int64]


@cache
def _powers() -> I64:
    found: I64 = np.rint(_ONE * np.exp2(-np.arange(256) / 256)).astype(np.int64)
    found.flags.writeable = False
    return found


#: Powers of two, ``EXP2[i]`` being ``rint(2**(15 - i / 256))``.
EXP2 = _powers()


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of int8 that have a factor each: ``codes * factor / 2**shift`` in steps of a scale.

    Attributes
    ----------
    codes : [..., C] int64
        -127 to 127.
    factor : [..., 1] int64
        2**14 to 2**15 - 1, what a multiplier of 16 bits takes.
    shift : [..., 1] int64
        1 to 47.
    """

    codes: I64
    factor: I64
    shift: I64

    def __getitem__(self, key: Any) -> "Rows":
        return Rows(self.codes[key], self.factor[key], self.shift[key])


def lengths_of(values: I64) -> I64:
    """Bits that positive numbers below 2**62 have: ``int.bit_length``.

    >>> lengths_of(np.array([1, 2, 255, 256, 2**53 - 1])).tolist()
    [1, 2, 8, 9, 53]
    """
    found = np.zeros_like(values)
    rest = values.copy()
    for step in (32, 16, 8, 4, 2, 1):
        above = rest >> step > 0
        found += above * step
        rest = np.where(above, rest >> step, rest)
    return found + 1


def reciprocal(values: I64) -> tuple[I64, I64]:
    """``1 / v`` as ``r / 2**(14 + n)``, for positive ``v`` below 2**47 that have ``n`` bits.

    ``r`` is 2**14 to 2**15 - 1: the quotient of ``2**(14 + n)`` and ``v``, rounded down, which
    fifteen steps of a division give. It is at most 2**-14 of it too small.

    >>> [one.tolist() for one in reciprocal(np.array([1, 3]))]
    [[32767, 21845], [1, 2]]
    """
    n = lengths_of(values)
    found = np.minimum((np.int64(1) << (14 + n)) // values, _ONE - 1)
    return found, n


def saturated(values: I64, form: str) -> I64:
    """Into the range of a form: ``int8``, ``int16`` or ``int32``."""
    low, high = {BYTE: (-128, 127), STREAM: (-STREAM_MAX, STREAM_MAX)}.get(
        form, (-WIDE_MAX, WIDE_MAX)
    )
    return np.clip(values, low, high)


def rescaled(values: I64, multiplier: Any, shift: Any) -> I64:
    """``(v * m + 2**(s - 1)) >> s``, before it saturates; a shift below 1 is one to the left."""
    s = np.asarray(shift, np.int64)
    right = np.maximum(s, 0)
    found: I64 = values * np.asarray(multiplier, np.int64)
    found = np.add(found, (np.int64(1) << right) >> 1)
    found >>= right
    if (s < 0).any():
        found <<= np.maximum(-s, 0)
    return found


def to_rows(values: I64) -> Rows:
    """int16 rows [..., C] as int8 with the greatest magnitude M of each as its factor.

    The value of a code is ``code * M / 127``: with the scale of the input times 2**15 / 127,
    ``M / 2**15`` is ``factor / 2**shift`` without rounding. Codes are within 0.51 of what they
    stand for.
    """
    most = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1)
    r, n = reciprocal(most)
    codes = rescaled(127 * values, r, 14 + n)
    left = 15 - n
    return Rows(np.clip(codes, -127, 127), most << left, 15 + left)


def exponentials(scores: I64, valid: NDArray[np.bool_], multiplier: int, shift: int) -> I64:
    """``2**15 * 2**-u`` where u is how far a score is below its row's greatest, times a number.

    Parameters
    ----------
    scores : [..., keys]
        int16.
    valid : bool, broadcasts to it
        Others become 0; every row has one.
    multiplier, shift : int
        ``multiplier / 2**shift`` octaves, in 256ths, for a step of a score.

    Returns
    -------
    [..., keys]
        0 to 2**15. Within 1.5 of the real number: half a step of u is 0.14 %, the table and the
        shift round by a half each.
    """
    below = np.where(valid, scores, -(2**16)).max(axis=-1, keepdims=True) - scores
    u = rescaled(np.maximum(below, 0), multiplier, shift)
    octave = np.minimum(u >> 8, 16)
    found: I64 = (EXP2[u & 255] + ((1 << octave) >> 1)) >> octave
    found *= valid & (octave < 16)
    return found


def shares(powers: I64, form: str) -> I64 | Rows:
    """Rows of exponentials [..., keys] as shares of their sum.

    ``rows``: codes 0 to 127, the greatest being 127, whose factor is 128 times the reciprocal of
    their own sum, so that in steps of 1 / 128 they add up to 1 whatever was rounded; ``int16``: in
    steps of 2**-14.
    """
    if form == "rows":
        codes = (127 * powers + (_ONE >> 1)) >> 15
        r, n = reciprocal(codes.sum(axis=-1, keepdims=True))
        return Rows(codes, r, 7 + n)
    r, n = reciprocal(powers.sum(axis=-1, keepdims=True))
    return rescaled(powers, r, n + 14 - SHARE_BITS)


def normalised(values: I64, epsilon: int, *, centred: bool) -> I64:
    """Rows [..., N] over their deviation, in steps of 2**-18.

    Rows whose greatest magnitude has more than 15 bits are rounded to 15 first, and ``epsilon`` is
    shifted with them; it stays at least 1. Then, with ``S = sum(v)`` if ``centred``, else 0,
    ``d = N v - S`` and ``V = N sum(v * v) - S * S + epsilon``: ``d / sqrt(V)``, within 2**-13 of it
    and a step. The root is of ``V`` shifted by an even number to 31 or 32 bits.
    """
    count = values.shape[-1]
    most = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1)
    e = np.maximum(lengths_of(most) - 15, 0)
    x = rescaled(values, 1, e)
    epsilons = np.maximum(np.int64(epsilon) >> (2 * e), 1)
    total = x.sum(axis=-1, keepdims=True) if centred else np.int64(0)
    energy = count * (x * x).sum(axis=-1, keepdims=True) - total * total + epsilons
    k = 2 * ((lengths_of(energy) - 31) // 2)
    wide = (energy >> np.maximum(k, 0)) << np.maximum(-k, 0)
    root = np.floor(np.sqrt(wide.astype(np.float64))).astype(np.int64)  # exact below 2**52
    r = np.minimum(np.int64(2**30) // root, _ONE - 1)
    return rescaled(count * x - total, r, 30 - NORM_BITS + k // 2)


def interpolated(values: I64, table: I64, form: str) -> I64:
    """A function of int16 by 257 entries of int16, straight between them.

    An ``int8`` output is the table's number over 256, rounded once.
    """
    place, rest = (values >> 8) + 128, values & 255
    fine = table[place] * 256 + (table[place + 1] - table[place]) * rest
    return saturated((fine + 128) >> 8 if form == "int16" else (fine + 2**15) >> 16, form)


def rotated(values: I64, cosines: I64, sines: I64, pairs: str) -> I64:
    """Turn pairs of the last axis [..., D] by angles [..., D / 2], int16 each; sums of products.

    ``adjacent``: (0, 1), (2, 3), ...; ``halves``: (0, D / 2), (1, D / 2 + 1), ...
    """
    if pairs == "adjacent":
        first, second = values[..., ::2], values[..., 1::2]
    else:
        first, second = np.split(values, 2, axis=-1)
    parts = first * cosines - second * sines, first * sines + second * cosines
    if pairs == "adjacent":
        return np.stack(parts, axis=-1).reshape(values.shape)
    return np.concatenate(parts, axis=-1)


def mean_of_rows(values: I64, valid: NDArray[np.bool_]) -> I64:
    """Mean over the valid rows of [B, T, C], 256 times as fine; [B, 1, C]."""
    total = np.where(valid[..., None], values, 0).sum(axis=1, keepdims=True)
    r, n = reciprocal(valid.sum(axis=1, dtype=np.int64)[:, None, None])
    return rescaled(total, r, 14 + n - _GUARD)
