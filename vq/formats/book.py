"""Fixed codebooks: whole numbers that are given, not found, and that training leaves alone."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vq.container.rom import read_rom, rom_name

__all__ = ["Book"]

_NAME = re.compile(r"(rom|sha256):[0-9a-f]{64}")


@dataclass(frozen=True)
class Book:
    """A codebook by what it holds; two are equal if their integers are.

    Attributes
    ----------
    name : str
        ``rom:<sha256>`` where hardware holds the codebook and a file only names it,
        ``sha256:<sha256>`` where files store it.
    shape : (k, d), or None
        None where only the name is known: enough to plan with, not to compress.
    data : bytes
        Its k * d integers, codeword by codeword.
    file : Path or None
        Where they were read from.
    """

    name: str
    shape: tuple[int, int] | None = field(default=None, compare=False)
    data: bytes = field(default=b"", compare=False, repr=False)
    file: Path | None = field(default=None, compare=False, repr=False)

    @classmethod
    def named(cls, text: str, folder: Path) -> "Book":
        """Read ``PATH`` or ``rom:PATH``, an array file [k, d] int8, or take a name as it is.

        Raises
        ------
        ConfigError
            If the file cannot be read or holds another kind of array.
        """
        if _NAME.fullmatch(text):
            return cls(text)
        path = text.removeprefix("rom:")
        file = folder / path
        return cls.of(read_rom(file), rom=path != text, file=file)

    @classmethod
    def of(
        cls, integers: NDArray[np.int8], *, rom: bool = False, file: Path | None = None
    ) -> "Book":
        """The book of integers [k, d], which files store, or (``rom``) only name."""
        k, d = integers.shape
        name = rom_name(integers)
        if not rom:
            name = f"sha256:{name.removeprefix('rom:')}"
        return cls(name, (k, d), integers.tobytes(), file)

    @property
    def integers(self) -> NDArray[np.int8] | None:
        """Codebook [k, d] int8, or None where only the name is known."""
        if self.shape is None:
            return None
        return np.frombuffer(self.data, np.int8).reshape(self.shape).copy()

    @property
    def tensor(self) -> str:
        """How the geometry of a layer names it: a tensor of the file, or ``rom:<sha256>``."""
        return self.name if self.name.startswith("rom:") else f"codebook:{self.name}"

    def problems(self, low: int, high: int) -> list[str]:
        """Everything that keeps the integers from being codewords of ``low`` to ``high``."""
        integers = self.integers
        if integers is None or not integers.size:
            return []
        least, most = int(integers.min()), int(integers.max())
        if least < low or most > high:
            return [f"codebook must hold {low} to {high}, not {least} to {most}"]
        return [] if least or most else ["codebook must hold more than zeros"]
