"""Fixed codebooks as text: what an instance with its codebook in ROM is generated from."""

import re

import numpy as np
from numpy.typing import NDArray

from vq.container import ConfigError

__all__ = ["parse_rom", "rom_text"]

_TEXT = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5}):((?:[0-9a-f]{2})+)")


def rom_text(codebook: NDArray[np.int8]) -> str:
    """Text of a [k, d] int8 codebook: k, d, and its bytes in hexadecimal, codeword by codeword.

    It is the value of ``codebook_rom`` in :class:`~rtl.StreamerConfig` and
    :class:`~rtl.AcceleratorConfig`.

    Raises
    ------
    ConfigError
        If the array is not [k, d] int8.

    Examples
    --------
    >>> rom_text(np.array([[0, 127, 3, 1], [-1, 2, 2, 0]], np.int8))
    '2x4:007f0301ff020200'
    """
    if codebook.ndim != 2 or codebook.dtype != np.int8 or not codebook.size:
        raise ConfigError(
            f"codebook must be [k, d] int8, not {list(codebook.shape)} {codebook.dtype}"
        )
    k, d = codebook.shape
    return f"{k}x{d}:{codebook.tobytes().hex()}"


def parse_rom(text: str) -> NDArray[np.int8] | None:
    """Codebook of a text, [k, d] int8 and read-only; None if the text is not one of a codebook.

    Examples
    --------
    >>> parse_rom("2x4:007f0301ff020200")
    array([[  0, 127,   3,   1],
           [ -1,   2,   2,   0]], dtype=int8)
    """
    parts = _TEXT.fullmatch(text)
    if parts is None:
        return None
    k, d, data = int(parts[1]), int(parts[2]), bytes.fromhex(parts[3])
    return np.frombuffer(data, np.int8).reshape(k, d) if len(data) == k * d else None
