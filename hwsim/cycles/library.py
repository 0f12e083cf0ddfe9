"""The model as a library: compiled once for each version of its sources, then found."""

import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hwsim.cycles.header import SOURCE
from rtl.cache import cache_folder
from vq.container import OutputError, SimulationError

__all__ = ["library"]

_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


@functools.cache
def library() -> ctypes.CDLL:
    """Load the model, and build it before if there is no build of these sources yet.

    Raises
    ------
    SimulationError
        If there is no C compiler (``$CC``, else ``cc``), or it fails.
    OutputError
        If the cache folder cannot be written.
    """
    compiler = os.environ.get("CC") or "cc"
    parts = [*_FLAGS, compiler, *(file.read_text() for file in sorted(SOURCE.iterdir()))]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    path = cache_folder() / f"cycles-{key}" / "machine.so"
    if not path.exists():
        _build(compiler, path)
    loaded = ctypes.CDLL(str(path))
    loaded.signbook_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    loaded.signbook_forget.argtypes = [ctypes.c_void_p]
    loaded.signbook_size.restype = ctypes.c_int64
    return loaded


def _build(compiler: str, path: Path) -> None:
    if shutil.which(compiler) is None:
        raise SimulationError(
            f"{compiler} must be on PATH, but it is not: the cycle model is compiled C"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / path.name
                command = [compiler, *_FLAGS, "-o", str(made), str(SOURCE / "machine.c")]
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
