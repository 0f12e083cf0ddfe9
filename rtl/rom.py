"""Fixed codebooks as text: what an instance with its codebook in ROM is generated from."""

import hashlib
import os
import re
import tokenize

import numpy as np
from numpy.typing import NDArray

from vq.container import ConfigError

__all__ = ["parse_rom", "read_rom", "rom_name", "rom_text"]

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


def rom_name(codebook: NDArray[np.int8]) -> str:
    """The name by which layers of a container ask for a codebook: ``rom:<sha256>``."""
    return f"rom:{hashlib.sha256(codebook.tobytes()).hexdigest()}"


def read_rom(path: str | os.PathLike[str]) -> NDArray[np.int8]:
    """Codebook of a ``*.npy`` file, [k, d] int8.

    Raises
    ------
    ConfigError
        If the file cannot be read, is damaged, or holds another kind of array.
    """
    try:
        # Mapped, so that a header which promises too much is found without memory for it.
        codebook = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise ConfigError(f"{path}: must be an array file of numpy, but {error}") from None
    if codebook.ndim != 2 or codebook.dtype != np.int8:
        raise ConfigError(
            f"{path}: codebook must be [k, d] int8, not {list(codebook.shape)} {codebook.dtype}"
        )
    return np.array(codebook, np.int8, order="C", subok=False)
