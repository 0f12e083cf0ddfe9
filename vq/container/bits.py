"""Bits to bytes and back: the index part and the sign part of a chunk.

Everything here is least significant bit first: bit ``i`` of a bit string is bit ``i mod 8`` of
byte ``i div 8``.
"""

import numpy as np
from numpy.typing import NDArray

from vq.container.constants import CHUNK_SUBVECTORS, GRANULE_BYTES

__all__ = ["pack_planes", "pack_signs", "parity_sign", "unpack_planes", "unpack_signs"]

U8 = NDArray[np.uint8]


def pack_planes(values: NDArray[np.integer], bits: int) -> U8:
    """Pack unsigned integers into bit-planes, one row per chunk of 512.

    Parameters
    ----------
    values : [N] unsigned integers, each below ``2**bits``
    bits : int, 1..16

    Returns
    -------
    [C, 64 * bits] uint8, ``C = ceil(N / 512)``
        Bit ``i`` of plane ``p`` (bytes ``64 p`` to ``64 p + 63`` of the row) is bit ``p`` of value
        ``i`` of the chunk. Lanes past ``N`` are zero.
    """
    chunks = -(-len(values) // CHUNK_SUBVECTORS)
    padded = np.zeros(chunks * CHUNK_SUBVECTORS, np.uint8 if bits <= 8 else np.uint16)
    padded[: len(values)] = values
    planes = np.empty((chunks, bits, GRANULE_BYTES), np.uint8)
    for p in range(bits):
        bit = np.bitwise_and(padded, 1 << p)  # packbits takes any non-zero as 1
        planes[:, p] = np.packbits(bit, bitorder="little").reshape(chunks, GRANULE_BYTES)
    return planes.reshape(chunks, bits * GRANULE_BYTES)


def unpack_planes(planes: U8, bits: int) -> NDArray[np.integer]:
    """Undo :func:`pack_planes`: [C, 64 * bits] bytes to [C * 512] uint8, or uint16 past 8 bits."""
    chunks = len(planes)
    grid = planes.reshape(chunks, bits, GRANULE_BYTES)
    values: NDArray[np.integer] = np.zeros(
        chunks * CHUNK_SUBVECTORS, np.uint8 if bits <= 8 else np.uint16
    )
    for p in range(bits):
        plane = np.ascontiguousarray(grid[:, p]).reshape(-1)
        bit = np.unpackbits(plane, bitorder="little").astype(values.dtype, copy=False)
        np.left_shift(bit, p, out=bit)
        np.bitwise_or(values, bit, out=values)
    return values


def pack_signs(negative: NDArray[np.bool_], sign_bits: int) -> U8:
    """Pack the signs of sub-vectors as one bit string.

    Parameters
    ----------
    negative : [N, d] bool
        True where a weight is negative.
    sign_bits : int, ``d`` or ``d - 1``
        With ``d - 1`` (parity signs) the last sign of every sub-vector is not stored; it is the
        exclusive or of the others, so every row must have an even number of negative weights.

    Returns
    -------
    [64 * ceil(N * sign_bits / 512)] uint8
    """
    stored = np.ascontiguousarray(negative[:, :sign_bits])
    packed = np.packbits(stored.reshape(-1).view(np.uint8), bitorder="little")
    out = np.zeros(-(-len(packed) // GRANULE_BYTES) * GRANULE_BYTES, np.uint8)
    out[: len(packed)] = packed
    return out


def unpack_signs(packed: U8, sign_bits: int, d: int) -> NDArray[np.bool_]:
    """Undo :func:`pack_signs`: bytes to [N', d] bool, ``N' = 8 * len(packed) // sign_bits``."""
    bits = np.unpackbits(packed, bitorder="little")
    rows = len(bits) // sign_bits
    stored = bits[: rows * sign_bits].reshape(rows, sign_bits).view(np.bool_)
    return parity_sign(stored) if sign_bits == d - 1 else stored


def parity_sign(stored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Append the sign that makes the number of negative weights even: [N, d-1] to [N, d]."""
    full = np.empty((len(stored), stored.shape[1] + 1), np.bool_)
    full[:, :-1] = stored
    last = full[:, -1]
    last[:] = False
    for column in stored.T:  # far faster than reducing along so short an axis
        np.bitwise_xor(last, column, out=last)
    return full
