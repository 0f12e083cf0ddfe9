"""Fixed codebooks in array files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.rtl.fixed import codebook
from vq.container.rom import read_rom, rom_name, roms_of
from vq.errors import ConfigError


def test_names_are_of_the_bytes() -> None:
    book = codebook((16, 8))
    assert rom_name(book) == f"rom:{hashlib.sha256(book.tobytes()).hexdigest()}"
    assert rom_name(np.asfortranarray(book)) == rom_name(book)


def test_array_files(tmp_path: Path) -> None:
    path = tmp_path / "rom.npy"
    book = np.asfortranarray(codebook((16, 8)))
    np.save(path, book)
    assert np.array_equal(read_rom(path), book)
    (name,) = roms_of(path)
    assert name == rom_name(book) and np.array_equal(roms_of(path)[name], book)
    assert roms_of(None) == {}
    for wrong in (book[0], book.astype(np.int32)):
        np.save(path, wrong)
        with pytest.raises(ConfigError, match=r"rom\.npy: codebook must be \[k, d\] int8, not \["):
            read_rom(path)


def test_damaged_array_files(tmp_path: Path) -> None:
    path = tmp_path / "rom.npy"
    with pytest.raises(
        ConfigError,
        match=r"rom\.npy: must be an array file of numpy, but No such",
    ):
        read_rom(path)
    np.save(path, codebook((16, 8)))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in (0, 1, 7, 40, 127, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ConfigError,
            match=r"rom\.npy: must be an array file of numpy, but it is damaged",
        ):
            read_rom(path)
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(0, 128)] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            book = read_rom(path)
        except ConfigError:
            continue
        assert book.dtype == np.int8 and book.ndim == 2
