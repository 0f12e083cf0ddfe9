"""Models in C: compiled once for each version of their sources, then found."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from vq.errors import OutputError, SimulationError

__all__ = ["cache_folder", "compiled"]

_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


def compiled(name: str, main: Path) -> ctypes.CDLL:
    """Load a library, and build it before if there is no build of these sources yet.

    Several processes may do so at once.

    Parameters
    ----------
    name : str
        What its builds are called in the cache.
    main : Path
        The file to compile; all files of its folder are its sources.

    Raises
    ------
    SimulationError
        If there is no C compiler (``$CC``, else ``cc``), or it fails.
    OutputError
        If the cache folder cannot be written.
    """
    compiler = os.environ.get("CC") or "cc"
    parts = [*_FLAGS, compiler, *(file.read_text() for file in sorted(main.parent.iterdir()))]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    path = cache_folder() / f"{name}-{key}" / f"{main.stem}.so"
    if not path.exists():
        _build(compiler, main, path)
    return ctypes.CDLL(str(path))


def cache_folder() -> Path:
    """Folder of all finished builds: ``$SIGNBOOK_CACHE``, else ``~/.cache/signbook``."""
    return Path(os.environ.get("SIGNBOOK_CACHE") or Path.home() / ".cache" / "signbook")


def _build(compiler: str, main: Path, path: Path) -> None:
    if shutil.which(compiler) is None:
        raise SimulationError(
            f"{compiler} must be on PATH, but it is not: DRAM and the cycle model are compiled C"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / path.name
                command = [compiler, *_FLAGS, "-o", str(made), str(main)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise SimulationError(
                        f"{compiler} must succeed, not end with status {done.returncode}:\n"
                        f"{done.stderr}"
                    )
                made.rename(path)
    except OSError as error:
        raise OutputError(
            f"cache folder {path.parent} must be writable, not refused with "
            f"{error.strerror or error!r}; set SIGNBOOK_CACHE to another folder"
        ) from error
