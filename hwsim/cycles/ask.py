"""A memory model behind the C model: its questions, and the object that answers them."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from hwsim.memory import MemoryModel

__all__ = ["Answers"]

_WIDE, _NUM = ctypes.c_int64, ctypes.c_int32
_REQUEST = ctypes.CFUNCTYPE(None, _WIDE, _WIDE, _NUM)
_WRITE = ctypes.CFUNCTYPE(_WIDE, _WIDE, _WIDE)
_PASS = ctypes.CFUNCTYPE(_WIDE, _WIDE, _WIDE, _NUM, _WIDE)
_NO_TICKET = -1


class Answers:
    """Functions of ``Asked`` in ``machine.h`` for a memory model.

    A model may decide late; it then has ``advance`` and ``written_cycle``, and a write gives a
    ticket. Without them, what is asked is known at once and a write gives its cycle. One that has
    ``pop_column`` is asked once for all beats that come together.

    Parameters
    ----------
    memory : MemoryModel
    beat_bytes : int
    fields : structured array
        ``Memory`` of ``machine.h``, to put answers into.

    Attributes
    ----------
    error : BaseException or None
        What the model raised, if it did: C cannot pass it on.
    """

    def __init__(self, memory: MemoryModel, beat_bytes: int, fields: np.void) -> None:
        self.error: BaseException | None = None
        self._memory: Any = memory
        self._beat_bytes = beat_bytes
        self._fields = fields
        self._coming = fields["coming"]
        self._advance: Callable[[int], None] | None = getattr(memory, "advance", None)
        self._column: Callable[[], int] | None = getattr(memory, "pop_column", None)
        self._written: Callable[[int], int | None] | None = getattr(memory, "written_cycle", None)
        self._kept = (
            _REQUEST(self._guard(self._request)),
            _WRITE(self._guard(self._write)),
            _PASS(self._guard(self._pass)),
        )
        addresses = (ctypes.cast(function, ctypes.c_void_p).value for function in self._kept)
        #: Addresses of the functions, by their names in C.
        self.functions = dict(zip(("request", "write", "pass"), addresses, strict=True))

    def _guard(self, function: Callable[..., int]) -> Callable[..., int]:
        """Keep the first error, and end the run."""

        def guarded(*arguments: int) -> int:
            if self.error is None:
                try:
                    return function(*arguments)
                except BaseException as error:
                    self.error = error
                    self._fields["failed"] = 1
            return 0

        return guarded

    def _request(self, cycle: int, address: int, beats: int) -> int:
        self._memory.request(cycle, address, beats, self._beat_bytes)
        return 0

    def _write(self, cycle: int, address: int) -> int:
        return int(self._memory.write(cycle, address, self._beat_bytes))

    def _pass(self, cycle: int, until: int, beats_open: int, ticket: int) -> int:
        """See ``Asked``. Cycle by cycle, because what is decided may lead to a request at once."""
        while True:
            if self._advance is not None:
                self._advance(cycle - 1)  # as the slave, which drives the cycle that follows
            decided = bool(beats_open) and self._beats()
            if ticket != _NO_TICKET and self._response(ticket):
                decided = True
            if decided or cycle >= until or self._advance is None:
                return cycle
            cycle += 1

    def _beats(self) -> bool:
        """Note all beats that are decided; whether there are any."""
        memory, column, coming = self._memory, self._column, self._coming
        groups = 0
        while groups < len(coming):
            due = memory.ready_cycle()
            if due is None:
                break
            beats = 1
            if column is not None:
                beats = column()
            else:
                memory.pop()
            coming[groups] = due << 16 | beats
            groups += 1
        self._fields["groups"] = groups
        return groups > 0

    def _response(self, ticket: int) -> bool:
        """Note when a response comes, if that is decided."""
        due = ticket if self._written is None else self._written(ticket)
        if due is not None:
            self._fields["response_due"] = due
        return due is not None
