"""DRAM behind an AXI port: bursts become columns of channels, and these beats in order."""

from collections import deque
from fractions import Fraction
from typing import Any

from hwsim.memory.channel import Channel, Command
from hwsim.memory.checks import problems_of
from hwsim.memory.clocks import Clocks
from hwsim.memory.device import Device
from hwsim.memory.energy import Energy, EnergyTable
from hwsim.memory.mapping import AddressMapping
from hwsim.memory.posted import PostedWrites
from hwsim.memory.side import DUE, Column
from vq.errors import ConfigError, bulleted

__all__ = ["CLOCK_MHZ", "CONTROLLER_LATENCY_NS", "Dram"]

#: Clock of the accelerator if none is given.
CLOCK_MHZ = 500
#: Latency of controller, PHY and interconnect if none is given: users of simulators find 70 ns on
#: machines whose DRAM by itself takes 40 (issue 109 of Ramulator 2).
CONTROLLER_LATENCY_NS = 30

#: What is remembered of a column behind what a channel needs: beats that end with it, its channel.
_BEATS, _CHANNEL = 5, 6


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

    Raises
    ------
    ConfigError
        If the device contradicts itself, the mapping is not one, or a number is impossible.
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
        self._clocks = Clocks(self._clock_mhz, device.timing.tCK_ps, self._latency_ns)
        self._mapping = AddressMapping(mapping or device.mapping, device.structure)
        self._column_bytes = device.structure.column_bytes
        self._channels = [
            Channel(
                device.structure,
                device.timing,
                device.control,
                trace[number] if trace is not None else None,
            )
            for number in range(device.structure.channels)
        ]
        self._posted = PostedWrites(
            self._channels, self._mapping, self._column_bytes, device.control.write_columns
        )
        self._incoming = [channel.incoming for channel in self._channels]
        #: Columns that were asked for, in order, the oldest with beats left first.
        self._columns: deque[Column] = deque()
        self._order = 0
        self._known = 0  # clock before which nothing arrives any more
        self._latest = 0  # end of the last column that was looked at

    def request(self, cycle: int, address: int, beats: int, beat_bytes: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        arrival = self._clocks.arrival(cycle)
        if arrival > self._known:
            self._known = arrival
        mapping, size, columns, order = (
            self._mapping,
            self._column_bytes,
            self._columns,
            self._order,
        )
        bank_mask, row_shift = mapping.bank_mask, mapping.row_shift
        channel_shift, channel_mask = mapping.channel_shift, mapping.channel_mask
        low, low_bits, low_mask = mapping.low, mapping.low_bits, mapping.low_mask
        incoming, posted = self._incoming, self._posted
        end, beats_of_column = address + beats * beat_bytes, size // beat_bytes
        first = address // size
        high = mapping.high(first >> low_bits)
        for number in range(first, -(-end // size)):
            index = number & low_mask
            if not index:
                high = mapping.high(number >> low_bits)
            packed = high | low[index]
            channel = packed >> channel_shift & channel_mask
            bank, row = packed & bank_mask, packed >> row_shift
            column = [order, bank, row, arrival, -1, beats_of_column, channel]
            order += 1
            columns.append(column)
            if posted and posted.waits(number, arrival):
                column[DUE] = arrival
            else:
                incoming[channel].append(column)
        if address % size or end % size or size % beat_bytes:
            self._share(address, beats, beat_bytes, order - self._order)
        self._order = order

    def _share(self, address: int, beats: int, beat_bytes: int, count: int) -> None:
        """Say of the last ``count`` columns which beats end in them."""
        given = 0
        for i in range(count):
            reached = (address // self._column_bytes + i + 1) * self._column_bytes - address
            beat = min(reached // beat_bytes, beats)
            self._columns[i - count][_BEATS] = beat - given
            given = beat

    def advance(self, cycle: int) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        self._known = max(self._known, self._clocks.arrival(cycle))

    def ready_cycle(self, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        columns = self._columns
        while columns:
            column = columns[0]
            if column[DUE] < 0:
                channel = self._channels[column[_CHANNEL]]
                if settle:
                    channel.settle(column, self._settled)
                else:
                    channel.run(self._known)
                if column[DUE] < 0:
                    return None
            self._latest = max(self._latest, column[DUE])
            if column[_BEATS]:
                return self._clocks.cycle(self._latest)
            columns.popleft()
        return None

    def _settled(self, end: int) -> int:
        """Clock before which nothing arrives if nothing does before the beat that then ends."""
        self.advance(self._clocks.cycle(max(self._latest, end)))
        return self._known

    def pop(self) -> None:
        """See :class:`~hwsim.memory.MemoryModel`."""
        column = self._columns[0]
        column[_BEATS] -= 1
        if not column[_BEATS]:
            self._columns.popleft()

    def pop_column(self) -> int:
        """Count all beats as transferred that came with the next one; return their number.

        They can be transferred from one cycle on, so a fast caller asks only once for them.
        """
        return self._columns.popleft()[_BEATS]

    def write(self, cycle: int, address: int, nbytes: int) -> int:
        """See :class:`~hwsim.memory.MemoryModel`."""
        arrival = self._clocks.arrival(cycle)
        self._known = max(self._known, arrival)
        return self._posted.write(arrival, address, nbytes)

    def written_cycle(self, ticket: int, *, settle: bool = False) -> int | None:
        """See :class:`~hwsim.memory.MemoryModel`. The controller answers when it has room."""
        clock = self._posted.answered(ticket, self._known, settle=settle)
        if clock is None:
            return None
        cycle = self._clocks.cycle(clock)
        if settle:
            self.advance(cycle)
        return cycle

    def counts(self, cycle: int) -> dict[str, int]:
        """Columns read and written, rows opened, and refreshes up to a cycle, an :meth:`advance`.

        What has been settled counts too, wherever that is.
        """
        self.advance(cycle)
        for channel in self._channels:
            channel.run(self._clocks.begun(cycle))
        channels = self._channels
        return {
            "reads": sum(channel.reads for channel in channels),
            "writes": sum(len(channel.write_clocks) for channel in channels),
            "activates": sum(channel.rows.activates for channel in channels),
            "refreshes": sum(channel.rows.refreshes for channel in channels),
        }

    def energy(self, cycle: int) -> Energy | None:
        """See :class:`~hwsim.memory.MemoryModel`. Writes that still wait are not in it."""
        if not self.device.rails:
            return None
        counts, clock = self.counts(cycle), self._clocks.begun(cycle)
        table = EnergyTable(self.device)
        active = sum(channel.rows.active_clocks(clock) for channel in self._channels)
        idle = max(0, clock * len(self._channels) * self.device.structure.ranks - active)
        return Energy(
            activate_pj=float(table.activate_pj * counts["activates"]),
            read_pj=float(table.read_pj * counts["reads"]),
            write_pj=float(table.write_pj * counts["writes"]),
            refresh_pj=float(table.refresh_pj * counts["refreshes"]),
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
