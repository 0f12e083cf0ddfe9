"""Liberty files: flip-flops found, and what is no library refused by its name."""

import gzip
from pathlib import Path

import pytest

from rtl.build.liberty import read_liberty
from tests.rtl.build.libraries import library
from vq.container import ConfigError


def test_files_of_a_library_plain_and_gzipped(tmp_path: Path) -> None:
    (tmp_path / "gates.lib").write_text(library(flip_flop=False))
    (tmp_path / "flip_flops.lib.gz").write_bytes(gzip.compress(library(gates=False).encode()))
    read = read_liberty([tmp_path / "gates.lib", tmp_path / "flip_flops.lib.gz"])
    assert read.flip_flops == {"DFF"} and read.with_flip_flops == ("library1.lib",)
    assert list(read.sources) == ["gates.lib", "flip_flops.lib.gz"]
    assert read.texts["library0.lib"] == library(flip_flop=False)


WHOLE = library()
DAMAGED = {
    "cut.lib": WHOLE[: len(WHOLE) // 2],
    "twice.lib": WHOLE + WHOLE,
    "brace.lib": WHOLE + "}",
    "text.lib": "no library",
    "cells.lib": "library (none) { }",
    "binary.lib": b"\x00\xff\xfe",
    "cut.lib.gz": gzip.compress(WHOLE.encode())[:-20],
    "bits.lib.gz": gzip.compress(WHOLE.encode())[:20] + bytes(100),
    "absent.lib": None,
    "folder.lib": "folder",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    content, path = DAMAGED[name], tmp_path / name
    if name == "folder.lib":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "fine.lib").write_text(WHOLE)
    with pytest.raises(ConfigError, match=rf"{name}: must be a library of cells, but") as error:
        read_liberty([tmp_path / "fine.lib", path])
    assert "fine.lib:" not in str(error.value) and "\n- " in str(error.value)


def test_a_library_without_flip_flops(tmp_path: Path) -> None:
    (tmp_path / "gates.lib").write_text(library(flip_flop=False))
    with pytest.raises(ConfigError, match=r"gates\.lib: must hold a flip-flop, but none"):
        read_liberty([tmp_path / "gates.lib"])
