"""Bits to bytes and back: the index part and the sign part of a chunk.

Everything here is least significant bit first: bit ``i`` of a bit string is bit ``i mod 8`` of
byte ``i div 8``.
"""

import numpy as np
from numpy.typing import NDArray

from vq.container.constants import CHUNK_SUBVECTORS, GRANULE_BYTES
from vq.container.parity import append_parity, drop_parity

__all__ = ["pack_planes", "pack_signs", "unpack_planes", "unpack_signs"]

U8 = NDArray[np.uint8]
_BLOCK = 256  # chunks at a time, so that what lies between input and output stays in a core's cache


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
    planes = np.empty((chunks, bits, GRANULE_BYTES), np.uint8)
    for first in range(0, chunks, _BLOCK):
        block = planes[first : first + _BLOCK]
        given = values[first * CHUNK_SUBVECTORS : (first + _BLOCK) * CHUNK_SUBVECTORS]
        byte = np.zeros(len(block) * CHUNK_SUBVECTORS, np.uint8)
        for p in range(bits):
            if p % 8 == 0:  # packbits is fast on bytes only
                byte[: len(given)] = given >> p if p else given
            bit = np.bitwise_and(byte, 1 << p % 8)  # packbits takes any non-zero as 1
            block[:, p] = np.packbits(bit, bitorder="little").reshape(-1, GRANULE_BYTES)
    return planes.reshape(chunks, bits * GRANULE_BYTES)


def unpack_planes(planes: U8, bits: int) -> NDArray[np.integer]:
    """Undo :func:`pack_planes`: [C, 64 * bits] bytes to [C * 512] uint8, or uint16 past 8 bits."""
    grid = planes.reshape(len(planes), bits, GRANULE_BYTES)
    kind = np.uint8 if bits <= 8 else np.uint16
    values: NDArray[np.integer] = np.empty((len(planes), CHUNK_SUBVECTORS), kind)
    for first in range(0, len(planes), _BLOCK):
        block = grid[first : first + _BLOCK].swapaxes(0, 1)
        lanes = np.unpackbits(block, bitorder="little").reshape(bits, -1)
        part = lanes[-1].astype(kind, copy=False)
        for p in reversed(range(bits - 1)):
            np.add(part, part, out=part)  # numpy adds bytes in vectors, but shifts them one by one
            np.bitwise_or(part, lanes[p], out=part)
        values[first : first + _BLOCK] = part.reshape(-1, CHUNK_SUBVECTORS)
    return values.reshape(-1)


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
    d = negative.shape[1]
    size = -(-len(negative) * sign_bits // 8)
    out = np.zeros(-(-size // GRANULE_BYTES) * GRANULE_BYTES, np.uint8)
    rows = _BLOCK * CHUNK_SUBVECTORS // d // 64 * 64
    for first in range(0, len(negative), rows):
        block = negative[first : first + rows]
        if sign_bits < d <= 8:
            packed = drop_parity(np.packbits(block, bitorder="little"), sign_bits)
        else:
            packed = np.packbits(block[:, :sign_bits], bitorder="little")
        at = first * sign_bits // 8
        packed = packed[: size - at]
        out[at : at + len(packed)] = packed
    return out


def unpack_signs(packed: U8, sign_bits: int, d: int) -> NDArray[np.bool_]:
    """Undo :func:`pack_signs`: bytes to [N', d] bool, ``N' = 8 * len(packed) // sign_bits``.

    The parity sign makes the number of negative weights even.
    """
    rows = 8 * len(packed) // sign_bits
    if sign_bits < d:
        return append_parity(packed, sign_bits)[:rows]
    bits = np.unpackbits(packed, count=rows * d, bitorder="little")
    return bits.reshape(rows, d).view(np.bool_)
