"""What tools made, kept for other runs: built by one process, complete, and checked when found."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vq.errors import OutputError

__all__ = ["cache_folder", "cached"]

#: Digests of all files of a build, written last.
_SEAL = "seal.json"


def cache_folder() -> Path:
    """Folder of all finished builds: ``$SIGNBOOK_CACHE``, else the user's cache folder.

    That is ``$XDG_CACHE_HOME/signbook``, else ``~/.cache/signbook``.

    Raises
    ------
    OutputError
        If none is named and the user has no home.
    """
    if named := os.environ.get("SIGNBOOK_CACHE"):
        return Path(named).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # as the specification has it, others are ignored
        return Path(shared) / "signbook"
    try:
        return Path.home() / ".cache" / "signbook"
    except RuntimeError as error:
        raise OutputError(
            "cache folder must lie somewhere, but this user has no home; set SIGNBOOK_CACHE to a "
            "folder"
        ) from error


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Find a build in the cache, or make it; a damaged one is made anew.

    Processes that want the same one at the same time wait for one of them.

    Parameters
    ----------
    name : str
        Of its folder in the cache; a hash in it says what it was built from.
    build : callable
        Writes the files of the build into the empty folder that it is given.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        If the cache folder cannot be written.
    """
    folder = cache_folder() / name
    if _is_whole(folder):
        return folder
    with _locked(folder), _writing(folder):
        if not _is_whole(folder):
            _build(folder, build)
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as place:
        made = Path(place) / "made"
        made.mkdir()
        build(made)
        (made / _SEAL).write_text(json.dumps(_digests(made)))
        if os.path.lexists(folder):  # damaged
            folder.rename(Path(place) / "damaged")
        made.rename(folder)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.name != _SEAL)
    return {file.name: _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _SEAL).read_bytes()) == _digests(folder))
    except (OSError, ValueError):  # not there, or damaged
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(f"{folder.name}.lock").open("w")
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cache folder {folder.parent} must be writable, not refused with "
            f"{error.strerror or repr(error)}; set SIGNBOOK_CACHE to another folder"
        ) from error
