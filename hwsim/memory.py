"""Memory models: when each beat of each burst can be delivered.

A model is one event-driven object. The AXI slave of the RTL simulation asks it cycle by cycle;
a cycle model can ask the same object without a simulator and gets the same answers.
"""

import difflib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from vq.errors import ConfigError, bulleted

__all__ = ["IdealMemory", "MemoryModel", "parse_memory"]


class MemoryModel(Protocol):
    """Timing of a memory behind one read port. Data return in the order of the requests."""

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        """Accept a burst of ``beats`` beats of ``beat_bytes`` bytes in ``cycle``.

        Cycles of successive calls must not decrease.
        """

    def ready_cycle(self) -> int | None:
        """First cycle in which the next beat may be transferred; None if none is requested."""

    def pop(self) -> None:
        """Count the next beat as transferred."""

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """Take data that the bus transferred in ``cycle``; return when they are in memory."""

    def describe(self) -> dict[str, Any]:
        """Name and settings, as reports print them."""


class IdealMemory:
    """Fixed bandwidth and fixed latency, any number of bursts under way.

    A burst accepted in cycle c delivers its first beat in cycle ``c + latency_cycles`` or when
    the bandwidth allows, whichever is later. A beat of n bytes takes ``n / bytes_per_cycle``
    cycles of bandwidth; parts of a cycle are not lost between beats.

    Parameters
    ----------
    bytes_per_cycle : Fraction or int
        Bandwidth, above 0. More than one beat per cycle does not help: the bus is the limit.
    latency_cycles : int
        From the request's acceptance to its first beat, at least 1.

    Attributes
    ----------
    unit : int
        Parts of a cycle in which :meth:`schedule` gives times.
    """

    def __init__(self, *, bytes_per_cycle: Fraction | int = 16, latency_cycles: int = 20) -> None:
        if bytes_per_cycle <= 0:
            raise ConfigError(
                f"memory bytes_per_cycle must be above 0, not {float(bytes_per_cycle):g}"
            )
        if latency_cycles < 1:
            raise ConfigError(f"memory latency must be at least 1 cycle, not {latency_cycles}")
        self.bytes_per_cycle = Fraction(bytes_per_cycle)
        self.latency_cycles = latency_cycles
        # Times are integers in units of 1 / self.unit cycles, in which a byte takes
        # self._byte_time: exact, and much faster than fractions.
        self.unit, self._byte_time = self.bytes_per_cycle.as_integer_ratio()
        self._free = 0  # when the bandwidth given to earlier beats ends
        # Per burst: time at which its next beat ends, time of a beat, beats left.
        self._bursts: deque[list[int]] = deque()

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        """See :class:`MemoryModel`. The address does not matter here."""
        first, step = self.schedule(cycle, beats, beat_bytes)
        self._bursts.append([first, step, beats])

    def schedule(self, cycle: int, beats: int, beat_bytes: int) -> tuple[int, int]:
        """Take bandwidth for a burst, in the place of :meth:`request`: who calls this counts.

        Returns
        -------
        first, step : int
            When the first beat has arrived, and the time of each: a beat that has arrived at t
            may be transferred from cycle ``(t - 1) // unit`` on.
        """
        start = max((cycle + self.latency_cycles) * self.unit, self._free)
        beat_time = beat_bytes * self._byte_time
        self._free = start + beats * beat_time
        return start + beat_time, beat_time

    def ready_cycle(self) -> int | None:
        """See :class:`MemoryModel`."""
        if not self._bursts:
            return None
        # A beat is there in the cycle in which the last of its bytes arrives.
        return (self._bursts[0][0] - 1) // self.unit

    def pop(self) -> None:
        """See :class:`MemoryModel`."""
        burst = self._bursts[0]
        burst[0] += burst[1]
        burst[2] -= 1
        if burst[2] == 0:
            self._bursts.popleft()

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """See :class:`MemoryModel`. Writes take their part of the bandwidth, behind what has been
        requested."""
        start = max(cycle * self.unit, self._free)
        self._free = start + nbytes * self._byte_time
        return self.latency_cycles + (self._free - 1) // self.unit

    def describe(self) -> dict[str, Any]:
        """See :class:`MemoryModel`."""
        return {
            "name": "ideal",
            "bytes_per_cycle": float(self.bytes_per_cycle),
            "latency_cycles": self.latency_cycles,
        }


@dataclass(frozen=True)
class _Option:
    """A setting of a memory: the argument it becomes, and how its text is read."""

    argument: str
    read: Callable[[str], Any]
    requirement: str


_IDEAL = {
    "bytes_per_cycle": _Option("bytes_per_cycle", Fraction, "a number above 0"),
    "latency": _Option("latency_cycles", int, "a whole number of cycles, at least 1"),
}
_PLAIN_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def parse_memory(spec: str) -> IdealMemory:
    """Build a memory model from its text form, ``ideal:bytes_per_cycle=16,latency=20``.

    Settings that are left out keep their defaults.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a value is impossible.
    """
    name, _, settings = spec.partition(":")
    if name != "ideal":
        raise ConfigError(
            f"memory must be 'ideal', not {name!r}; DRAM models such as ddr4-2400 "
            "are not part of this release"
        )
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, text = setting.partition("=")
        option = _IDEAL.get(key)
        if option is None:
            near = difflib.get_close_matches(key, _IDEAL, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            problems.append(f"setting must be one of {', '.join(_IDEAL)}, not {key!r}{hint}")
        elif option.argument in arguments:
            problems.append(f"{key} must be given once")
        else:
            try:
                if not _PLAIN_NUMBER.fullmatch(text):
                    raise ValueError
                arguments[option.argument] = option.read(text)
            except ValueError:
                problems.append(f"{key} must be {option.requirement}, not {text!r}")
    if problems:
        raise ConfigError(bulleted(f"memory {spec!r}", problems))
    return IdealMemory(**arguments)
