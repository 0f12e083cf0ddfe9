"""Models in C: compiled by what CC says, once for each version of their sources."""

import sys
from pathlib import Path

import pytest

from vq.errors import OutputError, SimulationError
from vq.native import library
from vq.native.library import compiled, kernels


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """C in a folder of its own."""
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CFLAGS", raising=False)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "sum.c").write_text('#include "one.h"\nint sum(int a) { return a + ONE; }\n')
    (folder / "one.h").write_text("#ifndef ONE\n#define ONE 1\n#endif\n")
    return folder / "sum.c"


def test_each_version_is_built_once(source, tmp_path, monkeypatch) -> None:
    assert compiled("sum", source).sum(2) == 3
    with monkeypatch.context() as patch:
        patch.setattr(library, "run_tool", None)
        assert compiled("sum", source).sum(5) == 6
    (source.parent / "one.h").write_text("#define ONE 10\n")
    assert compiled("sum", source).sum(2) == 12
    assert len(list((tmp_path / "cache").glob("sum-*/sum.so"))) == 2


def test_kernels_are_built_for_a_processor(source, tmp_path, monkeypatch) -> None:
    assert compiled("sum", source).sum(2) == 3
    for processor in ("one", "other", "one"):
        monkeypatch.setattr(library, "_processor", lambda processor=processor: processor)
        kernels.cache_clear()
        found = kernels("sum", source)
        assert found is not None and found.sum(2) == 3
        assert compiled("sum", source).sum(2) == 3
    assert len(list((tmp_path / "cache").glob("sum-*/sum.so"))) == 3
    kernels.cache_clear()


def test_this_processor_is_told_by_the_system() -> None:
    assert len(library._processor()) > len(library.platform.machine()) + 1


def test_without_a_compiler_there_are_no_kernels(source, monkeypatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    message = (
        r"^sum is computed without C, in several times the time, with results that differ by "
        r"rounding: no-such-compiler must be on PATH, but .*; install one, or set CC"
    )
    with pytest.warns(UserWarning, match=message):
        assert kernels("sum", source) is None
    assert kernels("sum", source) is None  # said once
    kernels.cache_clear()


def test_compilers_with_words_of_their_own(source, tmp_path, monkeypatch) -> None:
    """A wrapper as ccache is one, in a folder with a space; it warns, and that is all right."""
    wrapper = tmp_path / "my tools" / "wrapper"
    wrapper.parent.mkdir()
    wrapper.write_text('#!/bin/sh\necho "warning: old" >&2\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", f"'{wrapper}' cc -DONE=40")
    monkeypatch.setenv("CFLAGS", "-DTWO='1 + 1' -g0")
    source.write_text('#include "one.h"\nint sum(int a) { return a + ONE + TWO; }\n')
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "a cache"))
    assert compiled("sum", source).sum(0) == 42


def test_a_damaged_library_is_built_again(source, tmp_path) -> None:
    """Each damage in a process's first use: a library that is loaded stays in its memory."""
    compiled("sum", source)
    (built,) = (tmp_path / "cache").glob("sum-*/sum.so")
    whole = built.read_bytes()
    for damaged in (b"", b"garbage", whole[: len(whole) // 2]):
        built.unlink()
        built.write_bytes(damaged)
        assert compiled("sum", source).sum(2) == 3
    assert built.read_bytes() == whole


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("no-such-compiler -m64", r"^no-such-compiler must be on PATH, but .*; install one, or se"),
        ("false", r"^false must succeed, not end with status 1:\n"),
        (
            "cc --no-such-option",
            r"^cc --no-such-option must succeed, not end with status 1:\n.*no-",
        ),
        ("true", r"^true must compile C, but it ended with status 0 and wrote nothing; set CC"),
        ("touch -c", r"^touch -c must succeed, not end with status 1:\n"),
    ],
)
def test_what_is_no_compiler(compiler, message, source, monkeypatch) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(SimulationError, match=message):
        compiled("sum", source)


def test_what_cannot_be_loaded(source, tmp_path, monkeypatch) -> None:
    """A compiler for another machine."""
    other = tmp_path / "other"
    other.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[-2], 'w').write('other')\n")
    other.chmod(0o755)
    monkeypatch.setenv("CC", str(other))
    with pytest.raises(SimulationError, match=r"sum\.so: must be a library for this machine, but"):
        compiled("sum", source)


def test_what_cannot_be_built(source, monkeypatch) -> None:
    source.write_text("int sum(")
    with pytest.raises(
        SimulationError, match=r"(?s)^cc must succeed, not end with status 1:\n.*err"
    ):
        compiled("sum", source)
    monkeypatch.setenv("SIGNBOOK_CACHE", str(source / "inside"))
    with pytest.raises(OutputError, match=r"must be writable, .*; set SIGNBOOK_CACHE to another"):
        compiled("sum", source)
