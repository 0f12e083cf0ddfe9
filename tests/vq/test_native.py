"""Models in C: where their builds lie, and what is said where there can be none."""

from pathlib import Path

import pytest

from vq import native
from vq.errors import OutputError, SimulationError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """C in a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "sum.c").write_text('#include "one.h"\nint sum(int a) { return a + ONE; }\n')
    (folder / "one.h").write_text("#define ONE 1\n")
    return folder / "sum.c"


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "here"))
    assert native.cache_folder() == tmp_path / "here"
    monkeypatch.delenv("SIGNBOOK_CACHE")
    assert native.cache_folder() == Path.home() / ".cache" / "signbook"


def test_each_version_is_built_once(source, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SIGNBOOK_CACHE", str(cache))
    assert native.compiled("sum", source).sum(2) == 3
    monkeypatch.setattr(native, "_build", None)
    assert native.compiled("sum", source).sum(5) == 6
    monkeypatch.undo()
    monkeypatch.setenv("SIGNBOOK_CACHE", str(cache))
    (source.parent / "one.h").write_text("#define ONE 10\n")
    assert native.compiled("sum", source).sum(2) == 12
    assert len(list(cache.glob("sum-*/sum.so"))) == 2


def test_what_cannot_be_built(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SimulationError, match=r"^no-such-compiler must be on PATH"):
        native.compiled("sum", source)
    monkeypatch.delenv("CC")
    source.write_text("int sum(")
    with pytest.raises(SimulationError, match=r"^cc must succeed, not end with status 1:\n"):
        native.compiled("sum", source)
    monkeypatch.setenv("SIGNBOOK_CACHE", str(source / "inside"))
    with pytest.raises(OutputError, match=r"must be writable, .*; set SIGNBOOK_CACHE to another"):
        native.compiled("sum", source)
