"""DRAM behind an AXI port: a device, a mapping and two clocks, scheduled by the engine."""

import ctypes
from dataclasses import asdict
from fractions import Fraction
from math import lcm
from typing import Any

from hwsim.memory.checks import problems_of
from hwsim.memory.device import Device
from hwsim.memory.energy import Energy, EnergyTable
from hwsim.memory.engine import IMPOSSIBLE, NEVER, NO_MEMORY, Command, Engine
from hwsim.memory.mapping import AddressMapping
from vq.errors import ConfigError, SimulationError, bulleted

__all__ = ["CLOCK_MHZ", "CONTROLLER_LATENCY_NS", "Dram"]

#: Clock of the accelerator if none is given.
CLOCK_MHZ = 500
#: Latency of controller, PHY and interconnect if none is given: users of simulators find 70 ns on
#: machines whose DRAM by itself takes 40 (issue 109 of Ramulator 2).
CONTROLLER_LATENCY_NS = 30

#: Fields of a mapping, by the names that the engine has for them.
_FIELDS = {"row": "ro", "rank": "ra", "group": "bg", "bank": "ba", "channel": "ch"}
_COUNTS = ("reads", "writes", "activates", "refreshes")
_ALL = (1 << 31) - 1  # beats of a column


class Dram:
    """Banks and rows, read and written by bursts of an accelerator.

    A burst accepted in a cycle is with the controller at the end of that cycle plus the latency.
    All beats of a column can be transferred when the last of them has arrived, one per cycle, and
    in the order of the requests. Writes are answered when the controller has room for them, which
    keeps them until it suits; reads of what it keeps are answered by it.

    Parameters
    ----------
    device : Device
    mapping : str, optional
        See :class:`~hwsim.memory.mapping.AddressMapping`; that of the device if left out.
    clock_mhz : Fraction or int
        Of the accelerator, in MHz.
    controller_latency_ns : Fraction or int
        Added once to each access.
    trace : list of list of Command, optional
        One list per channel, to which each command is appended.

    Attributes
    ----------
    device : Device
    engine : Engine
        Does the work. A caller in C may ask it in the place of this object.

    Raises
    ------
    ConfigError
        If the device contradicts itself, the mapping is not one, or a number is impossible.
    SimulationError
        If there is no C compiler.
    """

    def __init__(
        self,
        device: Device,
        *,
        mapping: str | None = None,
        clock_mhz: Fraction | int = CLOCK_MHZ,
        controller_latency_ns: Fraction | int = CONTROLLER_LATENCY_NS,
        trace: list[list[Command]] | None = None,
    ) -> None:
        if clock_mhz <= 0:
            raise ConfigError(f"memory clock_mhz must be above 0, not {float(clock_mhz):g}")
        if controller_latency_ns < 0:
            raise ConfigError(
                "memory controller_latency_ns must be at least 0, "
                f"not {float(controller_latency_ns):g}"
            )
        problems = problems_of(device)
        if problems:
            listed = (f"{name} {problem}" for name, problem in problems.items())
            raise ConfigError(bulleted(f"memory {device.name!r}", listed))
        self.device = device
        self._clock_mhz = Fraction(clock_mhz)
        self._latency_ns = Fraction(controller_latency_ns)
        self._mapping = AddressMapping(mapping or device.mapping, device.structure)
        self._parts = self._clocks()
        self.engine = Engine(self._settings(), trace)
        self._at, library = self.engine.at, self.engine.library
        self._request, self._advance = library.signbook_dram_request, library.signbook_dram_advance
        self._ready, self._pop = library.signbook_dram_ready, library.signbook_dram_pop
        self._write, self._written = library.signbook_dram_write, library.signbook_dram_written

    def _settings(self) -> dict[str, int]:
        """What the engine has to know."""
        device = self.device
        settings = {
            **asdict(device.structure),
            **asdict(device.timing),
            **asdict(device.control),
            "rotating": int(device.control.arbitration == "rotating"),
            **self._parts,
        }
        for name, field in _FIELDS.items():
            settings[f"{name}_at"], settings[f"{name}_mask"] = self._mapping.bits[field]
        return settings

    def _clocks(self) -> dict[str, int]:
        """A clock of the memory, a cycle and the latency, in parts of which all are multiples."""
        tCK_ps = self.device.timing.tCK_ps
        cycle = 1_000_000 / self._clock_mhz / tCK_ps
        latency = self._latency_ns * 1000 / tCK_ps
        clock = lcm(cycle.denominator, latency.denominator)
        parts = {
            "clock_parts": clock,
            "cycle_parts": int(cycle * clock),
            "latency_parts": int(latency * clock),
        }
        if max(parts.values()) >= NEVER:
            raise ConfigError(
                "memory clock_mhz and controller_latency_ns must be exact in fewer digits, not "
                f"{float(self._clock_mhz)!r} and {float(self._latency_ns)!r} with a clock of "
                f"{float(tCK_ps):g} ps: no part of a clock above 2**-62 divides them"
            )
        return parts

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        answer = self._request(self._at, cycle, address, beats, beat_bytes)
        if answer:
            self._refuse(answer, f"a burst of {beats} beats of {beat_bytes} bytes")

    def advance(self, cycle: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        self._advance(self._at, cycle)

    def ready_cycle(self, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        cycle: int = self._ready(self._at, settle)
        return None if cycle < 0 else cycle

    def pop(self) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        self._take(1)

    def pop_column(self) -> int:
        """Count all beats as transferred that came with the next one; return their number.

        They can be transferred from one cycle on, so a fast caller asks only once for them.
        """
        return self._take(_ALL)

    def _take(self, most: int) -> int:
        beats: int = self._pop(self._at, most)
        if not beats:
            raise SimulationError("memory: a beat must be decided before it is taken")
        return beats

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """See :class:`~hwsim.memory.MemoryModel`. A ticket is kept until a later one is asked
        for."""
        ticket: int = self._write(self._at, cycle, address, nbytes)
        if ticket < 0:
            self._refuse(ticket, f"a beat of {nbytes} bytes")
        return ticket

    def written_cycle(self, ticket: int, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`. The controller answers when it has room."""
        cycle: int = self._written(self._at, ticket, settle)
        if cycle == IMPOSSIBLE:
            raise SimulationError(f"memory: ticket must be one of a write in order, not {ticket}")
        return None if cycle < 0 else cycle

    @staticmethod
    def _refuse(answer: int, what: str) -> None:
        if answer == NO_MEMORY:
            raise SimulationError(f"memory must have room for {what}, but it has none left")
        raise ConfigError(f"memory: bytes must be 1 to 2**31 in all, not {what}")

    def counts(self, cycle: int) -> dict[str, int]:
        """Columns read and written, rows opened, and refreshes up to a cycle, an :meth:`advance`.

        What has been settled counts too, wherever that is.
        """
        return dict(zip(_COUNTS, self._counted(cycle), strict=False))

    def _counted(self, cycle: int) -> list[int]:
        """The same, and the clocks with a row open, summed over ranks, behind it."""
        found = (ctypes.c_int64 * (len(_COUNTS) + 1))()
        self.engine.library.signbook_dram_count(self._at, cycle, found)
        return list(found)

    def energy(self, cycle: int) -> Energy | None:
        """See :class:`~hwsim.memory.MemoryModel`. Writes that still wait are not in it."""
        if not self.device.rails:
            return None
        structure, table = self.device.structure, EnergyTable(self.device)
        reads, writes, activates, refreshes, active = self._counted(cycle)
        clock = cycle * self._parts["cycle_parts"] // self._parts["clock_parts"]
        idle = max(0, clock * structure.channels * structure.ranks - active)
        return Energy(
            activate_pj=float(table.activate_pj * activates),
            read_pj=float(table.read_pj * reads),
            write_pj=float(table.write_pj * writes),
            refresh_pj=float(table.refresh_pj * refreshes),
            background_pj=float(table.active_pj * active + table.idle_pj * idle),
        )

    def describe(self) -> dict[str, Any]:
        """See :class:`~hwsim.memory.MemoryModel`."""
        device = self.device
        peak = device.peak_bytes_per_ns
        return {
            "name": device.name,
            "channels": device.structure.channels,
            "mapping": self._mapping.order,
            "clock_mhz": float(self._clock_mhz),
            "controller_latency_ns": float(self._latency_ns),
            "peak_gb_per_s": float(peak),
            "peak_bytes_per_cycle": float(peak * 1000 / self._clock_mhz),
            "arbitration": device.control.arbitration,
        }
