"""The cache of builds: where it is, that builds are whole, and that they are built once."""

import json
import re
import threading
from pathlib import Path

import pytest

from vq.errors import OutputError
from vq.native.cache import cache_folder, cached


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path) -> None:
    (folder / "a").write_bytes(b"first")
    (folder / "b").write_bytes(b"second")


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in "ab"]


def nothing(_: Path) -> None:
    raise AssertionError("built again")


def test_cache_folder(cache, tmp_path, monkeypatch):
    assert cache_folder() == cache
    monkeypatch.setenv("SIGNBOOK_CACHE", "here")
    monkeypatch.chdir(tmp_path)
    assert cache_folder() == tmp_path / "here"  # wherever a tool runs
    monkeypatch.setenv("SIGNBOOK_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "signbook"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "signbook"


def test_no_home(monkeypatch):
    for variable in ("SIGNBOOK_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a user without an entry
    with pytest.raises(OutputError, match=r"^cache folder must lie .*; set SIGNBOOK_CACHE to a "):
        cache_folder()


@pytest.mark.parametrize("name", ["cache", "with a space", 'o\'clock "$HOME" #1', "größe"])
def test_built_once(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / name))
    folder = cached("x-1", write)
    assert folder.parent == tmp_path / name and content(folder) == [b"first", b"second"]
    assert cached("x-1", nothing) == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["x-1", "x-1.lock"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a").write_bytes(b""),
        lambda folder: (folder / "a").write_bytes(b"firs?"),
        lambda folder: (folder / "b").unlink(),
        lambda folder: (folder / "seal.json").unlink(),
        lambda folder: (folder / "seal.json").write_bytes(b"\xff{"),
        lambda folder: (folder / "seal.json").write_text(json.dumps({})),
        lambda folder: (folder / "c").mkdir(),
        lambda folder: folder.rename(folder.with_name("gone")) and folder.write_bytes(b"file"),
    ],
)
def test_what_is_damaged_is_built_again(damage):
    folder = cached("x-1", write)
    damage(folder)
    assert content(cached("x-1", write)) == [b"first", b"second"]
    cached("x-1", nothing)


def test_a_build_that_fails_leaves_nothing(cache):
    def fail(folder: Path) -> None:
        write(folder)
        raise KeyError("broken")

    with pytest.raises(KeyError):
        cached("x-1", fail)
    assert [path.name for path in cache.iterdir()] == ["x-1.lock"]
    assert content(cached("x-1", write)) == [b"first", b"second"]


def test_builders_at_once_wait_for_one(cache):
    built, folders = [], []

    def build(folder: Path) -> None:
        built.append(1)
        threading.Event().wait(0.05)
        write(folder)

    threads = [
        threading.Thread(target=lambda: folders.append(cached("x-1", build))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (built, folders) == ([1], [cache / "x-1"] * 4)


def test_a_cache_that_cannot_be_written(cache):
    cache.write_text("a file")
    message = rf"^cache folder {re.escape(str(cache))} must be writable, .*; set SIGNBOOK_CACHE to "
    with pytest.raises(OutputError, match=message):
        cached("x-1", write)


def test_a_full_disk():
    def fill(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"must be writable, not refused with No space left"):
        cached("x-1", fill)
