"""Fixed codebooks: array files that hold one, and the name by which a file asks for it."""

import hashlib
import os
import tokenize

import numpy as np
from numpy.typing import NDArray

from vq.errors import ConfigError

__all__ = ["read_rom", "rom_name", "roms_of"]


def rom_name(codebook: NDArray[np.int8]) -> str:
    """The name by which layers of a container ask for a codebook: ``rom:<sha256>``."""
    return f"rom:{hashlib.sha256(codebook.tobytes()).hexdigest()}"


def roms_of(path: str | os.PathLike[str] | None) -> dict[str, NDArray[np.int8]]:
    """The codebook of an array file by its name, as readers take what a container only names.

    Empty if ``path`` is None.

    Raises
    ------
    ConfigError
        As :func:`read_rom`.
    """
    if path is None:
        return {}
    codebook = read_rom(path)
    return {rom_name(codebook): codebook}


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
        reason = getattr(error, "strerror", None) or "it is damaged, or none"
        raise ConfigError(f"{path}: must be an array file of numpy, but {reason}") from None
    if codebook.ndim != 2 or codebook.dtype != np.int8:
        raise ConfigError(
            f"{path}: codebook must be [k, d] int8, not {list(codebook.shape)} {codebook.dtype}"
        )
    return np.array(codebook, np.int8, order="C", subok=False)
