"""Models in C: compiled once for each version of their sources, then found."""

import ctypes
import hashlib
import platform
import shlex
from pathlib import Path

from vq.errors import SimulationError
from vq.native.cache import cached
from vq.native.tool import command_of, run_tool

__all__ = ["compiled"]

_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")


def compiled(name: str, main: Path) -> ctypes.CDLL:
    """Load a library, and build it before if there is no build of these sources yet.

    ``$CC`` (else ``cc``) and ``$CFLAGS`` say how, both as a shell reads them. Several processes
    may do so at once.

    Parameters
    ----------
    name : str
        What its builds are called in the cache.
    main : Path
        The file to compile; all files of its folder are its sources.

    Raises
    ------
    SimulationError
        If there is no C compiler, it fails, or makes what this machine cannot load.
    OutputError
        If the cache folder cannot be written.
    """
    compiler = command_of("CC", "cc")
    command = [*compiler, *_FLAGS, *command_of("CFLAGS", "")]
    sources = (file.read_text() for file in sorted(main.parent.iterdir()))
    parts = [*command, platform.machine(), *sources]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    library = f"{main.stem}.so"

    def build(folder: Path) -> None:
        run_tool(
            [*command, "-o", str(folder / library), str(main)],
            folder,
            name=shlex.join(compiler),
            remedy="install one, or set CC to another: DRAM and the cycle model are C",
        )
        if not (folder / library).exists():
            raise SimulationError(
                f"{shlex.join(compiler)} must compile C, but it ended with status 0 and wrote "
                "nothing; set CC to a C compiler"
            )

    path = cached(f"{name}-{key}", build) / library
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise SimulationError(
            f"{path}: must be a library for this machine, but it cannot be loaded; set CC and "
            "CFLAGS to what compiles for it"
        ) from error
