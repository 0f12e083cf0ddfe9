"""Codes of a layer as other libraries store them: dense bit fields in words of 32 bits."""

import numpy as np
from numpy.typing import NDArray

from vq.container import Container
from vq.container.order import spread

__all__ = ["pack_words", "read_codes", "read_scales", "read_zeros"]

_BLOCK_ROWS = 256
_INT8_ZERO = 128


def pack_words(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Pack each row of codes into words, the first code in the lowest bits.

    Code ``i`` takes bits ``i * bits`` to ``(i + 1) * bits - 1`` of its row and may straddle two
    words; a row starts a new word, and its last word is filled with zeros.

    Parameters
    ----------
    codes : [R, C] uint8 below ``2**bits``
    bits : int
        1 to 8.

    Returns
    -------
    [R, ceil(C * bits / 32)] int32
    """
    rows, columns = codes.shape
    out = np.zeros((rows, -(-columns * bits // 32)), "<i4")
    view = out.view(np.uint8)
    for start in range(0, rows, _BLOCK_ROWS):
        block = codes[start : start + _BLOCK_ROWS, :, None]
        fields = np.unpackbits(block, axis=2, count=bits, bitorder="little")
        packed = np.packbits(fields.reshape(len(block), -1), axis=1, bitorder="little")
        view[start : start + _BLOCK_ROWS, : packed.shape[1]] = packed
    return out


def read_codes(container: Container, name: str) -> NDArray[np.uint8]:
    """Unsigned codes of an int layer, [O, I]: the weight is ``(code - zero) * scale``."""
    g = container.geometry(name)
    zeros = spread(read_zeros(container, name), g)
    return container.integers(name).view(np.uint8) + zeros  # modulo 256, where codes lie below


def read_zeros(container: Container, name: str) -> NDArray[np.uint8]:
    """Zeros of an int layer, [O, ceil(I / group)]; 128 for int8."""
    g = container.geometry(name)
    return container.group_zeros(name) if g.group else np.full((g.O, 1), _INT8_ZERO, np.uint8)


def read_scales(container: Container, name: str) -> NDArray[np.float16 | np.float32]:
    """Scales of an int layer, [O, ceil(I / group)]: float16 of groups, float32 of int8."""
    g = container.geometry(name)
    if g.group:
        return container.group_scales(name)
    return np.broadcast_to(container.scale(name)[:, None], (g.O, 1))
