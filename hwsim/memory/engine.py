"""The scheduler of DRAM, in C: settings go in, commands come out. ``source/`` holds it."""

import ctypes
import functools
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vq.errors import SimulationError
from vq.native import compiled

__all__ = ["IMPOSSIBLE", "NEVER", "NO_MEMORY", "Command", "Engine"]

#: Later than all that happens, and more than anything is counted.
NEVER = 1 << 62
#: Answers of the functions, see ``dram.c``.
NO_MEMORY, IMPOSSIBLE = -2, -3

_SOURCE = Path(__file__).parent / "source"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SETTINGS = re.compile(r"typedef struct \{(.*?)\} Settings;", re.DOTALL)
_NAMES = ("ACT", "PRE", "PREA", "RD", "WR", "REF")
_NUM, _WIDE, _AT = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
_TRACE = ctypes.CFUNCTYPE(None, *[_WIDE] * 6)
#: Arguments behind the memory, and result.
_FUNCTIONS: dict[str, tuple[list[type], type | None]] = {
    "request": ([_WIDE, ctypes.c_uint64, _WIDE, _WIDE], _NUM),
    "advance": ([_WIDE], None),
    "ready": ([_NUM], _WIDE),
    "pop": ([_NUM], _NUM),
    "beats": ([ctypes.POINTER(_WIDE)], _NUM),
    "write": ([_WIDE, ctypes.c_uint64, _WIDE], _WIDE),
    "written": ([_WIDE, _NUM], _WIDE),
    "count": ([_WIDE, ctypes.POINTER(_WIDE)], None),
    "free": ([], None),
}


class Command(NamedTuple):
    """A command: ACT, PRE, RD or WR of a bank, PREA or REF of a rank (bank and row are -1)."""

    clock: int
    name: str
    rank: int
    bank: int
    row: int


@functools.cache
def _library() -> ctypes.CDLL:
    loaded = compiled("memory", _SOURCE / "dram.c")
    loaded.signbook_dram_new.argtypes = [_AT, _AT]
    loaded.signbook_dram_new.restype = _AT
    for name, (arguments, result) in _FUNCTIONS.items():
        function = getattr(loaded, f"signbook_dram_{name}")
        function.argtypes, function.restype = [_AT, *arguments], result
    return loaded


@functools.cache
def _setting_names() -> list[str]:
    """Names in ``settings.h``, in order: it is the only place that lists them."""
    found = _SETTINGS.search(_COMMENT.sub("", (_SOURCE / "settings.h").read_text()))
    assert found is not None
    return re.findall(r"\w+", found[1].replace("wide ", ""))


class Engine:
    """A memory of ``dram.c``; it is given back with this object.

    Parameters
    ----------
    settings : mapping of str to int
        At least the names of ``settings.h``. More than ``NEVER`` is as much.
    trace : list of list of Command, optional
        One list per channel, to which each command is appended.

    Attributes
    ----------
    at : int
        Its address, the first argument of all functions.
    library : ctypes.CDLL
        Its functions are named ``signbook_dram_...``.

    Raises
    ------
    SimulationError
        If there is no C compiler, or not enough memory.
    """

    def __init__(
        self, settings: Mapping[str, int], trace: list[list[Command]] | None = None
    ) -> None:
        self.library = _library()
        names = _setting_names()
        values = (_WIDE * len(names))(*(min(settings[name], NEVER) for name in names))
        # A function without anything behind it is NULL.
        self._trace = _TRACE() if trace is None else _TRACE(functools.partial(_note, trace))
        at = self.library.signbook_dram_new(values, ctypes.cast(self._trace, _AT))
        if at is None:
            raise SimulationError("memory must have fewer banks: there is no room for all of them")
        self.at: int = at
        weakref.finalize(self, self.library.signbook_dram_free, at)

    def functions(self, *names: str) -> dict[str, int]:
        """Addresses of functions, for callers in C."""
        found = {}
        for name in names:
            address = ctypes.cast(getattr(self.library, f"signbook_dram_{name}"), _AT).value
            assert address is not None
            found[name] = address
        return found


def _note(
    trace: list[list[Command]], channel: int, clock: int, command: int, rank: int, bank: int,
    row: int,
) -> None:  # fmt: skip
    trace[channel].append(Command(clock, _NAMES[command], rank, bank, row))
