"""The sign that parity signs leave out: dropped and computed while signs are still packed.

The other ``s = d - 1`` signs of a sub-vector are a field of ``s`` bits. Fields are handled in words
of 64 bits, each with ``lanes`` fields, a power of two. Fields come to a distance of ``d`` bits in
log2(lanes) steps: the upper half of the word moves up by the bits that the lower half lacks, then
so does the upper half of each half, and so on. Packed signs are an eighth of the unpacked ones,
which makes the steps cheap.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["append_parity", "drop_parity"]

U8 = NDArray[np.uint8]
_WORD = np.dtype("<u8")


def append_parity(packed: U8, s: int) -> NDArray[np.bool_]:
    """Unpack fields of ``s`` bits, each followed by its exclusive or.

    Returns
    -------
    [N', s + 1] bool
        At least all whole fields; behind them come fields of missing bits, which are zeros.
    """
    d, lanes = s + 1, _lanes(s + 1)
    group = max(lanes, 8)  # fields that are whole bytes together
    words = _load(packed, group * s // 8, lanes * s, group // lanes)
    half = lanes // 2
    while half:
        upper = words & _fields(half * s, 2 * half * d, half * s)
        words += upper * ((1 << half) - 1)  # upper becomes upper << half
        half //= 2
    words |= (_parity(words, s) & _fields(1, d)) << s
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(-1, 64)
    return bits[:, : lanes * d].reshape(-1, d).view(np.bool_)


def drop_parity(packed: U8, s: int) -> U8:
    """Drop the last bit of every field of ``s + 1`` bits; ``s`` is at most 7."""
    d, lanes = s + 1, _lanes(s + 1)  # lanes * s bits are whole bytes
    words = _load(packed, lanes * d // 8, lanes * d, 1) & _fields(s, d)
    half = 1
    while half < lanes:
        upper = words >> half & _fields(half * s, 2 * half * d, half * s)
        words -= upper * ((1 << half) - 1)
        half *= 2
    return words.view(np.uint8)[:, : lanes * s // 8].reshape(-1)


def _load(packed: U8, step: int, width: int, parts: int) -> NDArray[np.uint64]:
    """Cut every ``step`` bytes into ``parts`` words of ``width`` bits: [n, parts]."""
    count = -(-len(packed) // step)
    padded = np.zeros(count * step + 16, np.uint8)  # reading goes past the end
    padded[: len(packed)] = packed
    words = np.empty((count, parts), _WORD)
    for part in range(parts):
        at, shift = divmod(part * width, 8)
        words[:, part] = np.ndarray(count, _WORD, padded, at, (step,)) >> shift
        if shift + width > 64:
            words[:, part] |= np.ndarray(count, _WORD, padded, at + 8, (step,)) << 64 - shift
    words &= _fields(width, 64)
    return words


def _parity(words: NDArray[np.uint64], s: int) -> NDArray[np.uint64]:
    """Bit ``i`` is the exclusive or of bits ``i`` to ``i + s - 1`` of the word."""
    parity, run, done, n = np.zeros_like(words), words.copy(), 0, 1
    while n <= s:  # bit i of run is the exclusive or of n bits
        if s & n:
            parity ^= run >> done
            done += n
        run ^= run >> n
        n *= 2
    return parity


def _lanes(d: int) -> int:
    """Fields of ``d`` bits in a word: the largest power of two that fits."""
    return 1 << (64 // d).bit_length() - 1


@cache
def _fields(width: int, stride: int, first: int = 0) -> np.uint64:
    """Mask of ``width`` bits at ``first`` and every ``stride`` bits on."""
    ones = sum((1 << width) - 1 << at for at in range(first, 64, stride))
    return np.uint64(ones & (1 << 64) - 1)
