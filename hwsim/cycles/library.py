"""The model as a library."""

import ctypes
import functools

from hwsim.cycles.header import SOURCE
from vq.native import compiled

__all__ = ["library"]


@functools.cache
def library() -> ctypes.CDLL:
    """Load the model, which is compiled when it is first used.

    Raises
    ------
    SimulationError, OutputError
        See :func:`vq.native.compiled`.
    """
    loaded = compiled("cycles", SOURCE / "machine.c")
    loaded.signbook_run.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    loaded.signbook_forget.argtypes = [ctypes.c_void_p]
    loaded.signbook_size.restype = ctypes.c_int64
    return loaded
