"""A memory with fixed bandwidth and fixed latency."""

from collections import deque
from fractions import Fraction
from typing import Any

from vq.errors import ConfigError

__all__ = ["IdealMemory"]


class IdealMemory:
    """Fixed bandwidth and fixed latency, any number of bursts under way.

    A burst accepted in cycle c delivers its first beat in cycle ``c + latency_cycles`` or when
    the bandwidth allows, whichever is later. A beat of n bytes takes ``n / bytes_per_cycle``
    cycles of bandwidth; parts of a cycle are not lost between beats. All is decided at once.

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
        """See :class:`~hwsim.memory.MemoryModel`. The address does not matter here."""
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

    def advance(self, cycle: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`. Nothing is open that this could decide."""

    def ready_cycle(self, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        if not self._bursts:
            return None
        # A beat is there in the cycle in which the last of its bytes arrives.
        return (self._bursts[0][0] - 1) // self.unit

    def pop(self) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        burst = self._bursts[0]
        burst[0] += burst[1]
        burst[2] -= 1
        if burst[2] == 0:
            self._bursts.popleft()

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """See :class:`~hwsim.memory.MemoryModel`. Writes take their part of the bandwidth, behind
        what has been requested; the ticket is the cycle itself."""
        start = max(cycle * self.unit, self._free)
        self._free = start + nbytes * self._byte_time
        return self.latency_cycles + (self._free - 1) // self.unit

    def written_cycle(self, ticket: int, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        return ticket

    def energy(self, cycle: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`. Unknown."""

    def describe(self) -> dict[str, Any]:
        """See :class:`~hwsim.memory.MemoryModel`."""
        return {
            "name": "ideal",
            "bytes_per_cycle": float(self.bytes_per_cycle),
            "latency_cycles": self.latency_cycles,
        }
