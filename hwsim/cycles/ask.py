"""A memory model behind the C model: its questions, and the object that answers them."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from hwsim.memory import Dram, MemoryModel

__all__ = ["Answers"]

_WIDE, _NUM, _AT = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p
#: Functions of ``Asked`` in ``machine.h``.
_FUNCTIONS = {
    "request": ctypes.CFUNCTYPE(_NUM, _AT, _WIDE, _WIDE, _WIDE, _WIDE),
    "advance": ctypes.CFUNCTYPE(None, _AT, _WIDE),
    "beats": ctypes.CFUNCTYPE(_NUM, _AT, ctypes.POINTER(_WIDE)),
    "write": ctypes.CFUNCTYPE(_WIDE, _AT, _WIDE, _WIDE, _WIDE),
    "written": ctypes.CFUNCTYPE(_WIDE, _AT, _WIDE, _NUM),
}
_NOT_YET = -1


class Answers:
    """Functions of ``Asked`` in ``machine.h`` for a memory model.

    The functions of a :class:`~hwsim.memory.Dram` are C themselves, and are called directly. Any
    other model may decide late; it then has ``advance`` and ``written_cycle``, and a write gives a
    ticket. Without them, what is asked is known at once and a write gives its cycle. One that has
    ``pop_column`` is asked once for all beats that come together.

    Parameters
    ----------
    memory : MemoryModel
    fields : structured array
        ``Memory`` of ``machine.h``, where a failure is noted.

    Attributes
    ----------
    error : BaseException or None
        What the model raised, if it did: C cannot pass it on.
    entries : dict of str to int
        What ``Asked`` holds.
    """

    def __init__(self, memory: MemoryModel, fields: np.void) -> None:
        self.error: BaseException | None = None
        self._memory: Any = memory
        self._fields = fields
        # A class derived from it may answer otherwise.
        if type(memory) is Dram:
            self.entries = memory.engine.functions(*_FUNCTIONS) | {"memory": memory.engine.at}
            return
        self._advance: Callable[[int], None] | None = getattr(memory, "advance", None)
        self._column: Callable[[], int] | None = getattr(memory, "pop_column", None)
        self._written: Callable[[int], int | None] | None = getattr(memory, "written_cycle", None)
        self._kept = {
            name: kind(self._guard(getattr(self, f"_answer_{name}")))
            for name, kind in _FUNCTIONS.items()
        }
        self.entries = {
            name: ctypes.cast(function, _AT).value or 0 for name, function in self._kept.items()
        }

    def _guard(self, function: Callable[..., int]) -> Callable[..., int]:
        """Keep the first error, and end the run."""

        def guarded(_: object, *arguments: Any) -> int:
            if self.error is None:
                try:
                    return function(*arguments)
                except BaseException as error:
                    self.error = error
                    self._fields["failed"] = 1
            return 0

        return guarded

    def _answer_request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> int:
        self._memory.request(cycle, address, beats, beat_bytes)
        return 0

    def _answer_advance(self, cycle: int) -> int:
        if self._advance is not None:
            self._advance(cycle)
        return 0

    def _answer_beats(self, cycle: Any) -> int:
        due = self._memory.ready_cycle()
        if due is None:
            return 0
        cycle[0] = due
        if self._column is not None:
            return self._column()
        self._memory.pop()
        return 1

    def _answer_write(self, cycle: int, address: int, nbytes: int) -> int:
        return int(self._memory.write(cycle, address, nbytes))

    def _answer_written(self, ticket: int, settle: int) -> int:
        due = ticket if self._written is None else self._written(ticket)
        return _NOT_YET if due is None else due
