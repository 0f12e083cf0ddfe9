"""Models and kernels in C: compiled once for each version of their sources, then found."""

import ctypes
import functools
import hashlib
import platform
import shlex
import warnings
from pathlib import Path

from vq.errors import OutputError, SimulationError
from vq.native.cache import cached
from vq.native.tool import command_of, run_tool

__all__ = ["compiled", "kernels"]

_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC")
_NATIVE = "-march=native"
#: Of kernels: what this processor has, in an order of operations that stays as it is written.
_KERNEL_FLAGS = (_NATIVE, "-ffp-contract=fast", "-fno-trapping-math", "-fno-math-errno")


@functools.cache
def kernels(name: str, main: Path) -> ctypes.CDLL | None:
    """Load functions that compute faster what Python computes, too; None where none are built.

    Parameters are those of :func:`compiled`. A warning says, once, why there is none.
    """
    try:
        return compiled(name, main, *_KERNEL_FLAGS)
    except (SimulationError, OutputError) as error:
        warnings.warn(
            f"{name} is computed without C, in several times the time, with results that differ by "
            f"rounding: {error}",
            stacklevel=2,
        )
        return None


def compiled(name: str, main: Path, *flags: str) -> ctypes.CDLL:
    """Load a library, and build it before if there is no build of these sources yet.

    ``$CC`` (else ``cc``) and ``$CFLAGS`` say how, both as a shell reads them. Several processes
    may do so at once.

    Parameters
    ----------
    name : str
        What its builds are called in the cache.
    main : Path
        The file to compile; all files of its folder are its sources.
    *flags : str
        Of the compiler, besides those that all get.

    Raises
    ------
    SimulationError
        If there is no C compiler, it fails, or makes what this machine cannot load.
    OutputError
        If the cache folder cannot be written.
    """
    compiler = command_of("CC", "cc")
    command = [*compiler, *_FLAGS, *flags, *command_of("CFLAGS", "")]
    sources = (file.read_text() for file in sorted(main.parent.iterdir()))
    machine = _processor() if _NATIVE in command else platform.machine()
    parts = [*command, machine, *sources]
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


def _processor() -> str:
    """What a build for this very processor depends on, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *sorted(set(told))])
