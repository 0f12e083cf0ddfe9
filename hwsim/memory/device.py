"""What is known of a DRAM: structure, timings, supply currents, and its controller."""

from dataclasses import dataclass
from fractions import Fraction

from vq.errors import ConfigError, bulleted

__all__ = ["Control", "Device", "Rail", "Structure", "Timing"]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """How a memory is built. All but ``devices`` are powers of two.

    Attributes
    ----------
    channels : int
        Independent channels; consecutive addresses are spread by the mapping.
    ranks, bank_groups, banks_per_group, rows : int
        Of a channel, of a rank, of a group, of a bank.
    row_bytes : int
        Bytes of an open row, over all devices of a rank.
    column_bytes : int
        Bytes of one read or write: bus width times burst length.
    devices : int
        Devices of a rank, which all take part in every access.
    """

    channels: int = 1
    ranks: int = 1
    bank_groups: int
    banks_per_group: int
    rows: int
    row_bytes: int
    column_bytes: int
    devices: int = 1

    @property
    def columns(self) -> int:
        """Columns of a row, as many as one read or write takes counting as one."""
        return self.row_bytes // self.column_bytes


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Timings in clocks, by their JEDEC names; between the beginnings of two commands.

    Attributes
    ----------
    tCK_ps : Fraction
        A clock, in picoseconds.
    burst : int
        Clocks for which a column keeps the data bus.
    CL, CWL : int
        From a read or write to its data, but for tDQSCK and tDQSS more.
    tRCDRD, tRCDWR : int
        Activate to read and to write.
    tRP, tRPab : int
        Precharge of a bank, and of all banks, to activate.
    tRAS, tRC : int
        Activate to precharge, and to the next activate of the bank.
    tRTP, tWR : int
        Read to precharge; end of written data to precharge.
    tCCD_S, tCCD_L : int
        Column to column of the same direction, in another group and in the same group of banks.
        Never below ``burst`` in effect.
    tRRD_S, tRRD_L, tFAW : int
        Activate to activate in another and the same group; window with at most four activates.
    tWTR_S, tWTR_L : int
        End of written data to read, another and the same group.
    tRTW : int
        Read to write in a rank.
    tRTRS : int
        Gap on the data bus when the rank changes.
    tPPD : int
        Precharge to precharge in a rank.
    tRFC, tREFI : int
        Refresh to activate; between refreshes of a rank. Without refresh, tREFI is 0.
    activate_clocks, column_clocks, precharge_clocks : int
        Clocks for which these commands keep the command bus; a refresh keeps it as a precharge.
    split_command_bus : int
        1 if columns have a command bus of their own.
    """

    tCK_ps: Fraction
    burst: int
    CL: int
    CWL: int
    tRCDRD: int
    tRCDWR: int
    tRP: int
    tRPab: int
    tRAS: int
    tRC: int
    tRTP: int
    tWR: int
    tCCD_S: int
    tCCD_L: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tWTR_S: int
    tWTR_L: int
    tRTW: int
    tRFC: int
    tREFI: int
    tRTRS: int = 0
    tPPD: int = 0
    tDQSCK: int = 0
    tDQSS: int = 0
    activate_clocks: int = 1
    column_clocks: int = 1
    precharge_clocks: int = 1
    split_command_bus: int = 0

    @property
    def read_end(self) -> int:
        """Clocks from a read to the end of its data."""
        return self.CL + self.tDQSCK + self.burst

    @property
    def write_end(self) -> int:
        """Clocks from a write to the end of its data."""
        return self.CWL + self.tDQSS + self.burst


@dataclass(frozen=True, kw_only=True)
class Rail:
    """A supply of one device: voltage, and currents in mA by their JEDEC names.

    ``IDD0`` activate and precharge in turn every tRC, ``IDD2N`` all rows closed, ``IDD3N`` a row
    open, ``IDD4R`` and ``IDD4W`` columns without a gap, ``IDD5`` refresh without a gap.
    """

    volts: Fraction
    IDD0: Fraction
    IDD2N: Fraction
    IDD3N: Fraction
    IDD4R: Fraction
    IDD4W: Fraction
    IDD5: Fraction


@dataclass(frozen=True, kw_only=True)
class Control:
    """What the memory controller keeps and in which order it goes; by channel.

    Attributes
    ----------
    window_columns : int
        Columns to read that are considered, beside those in queues.
    bank_queue_columns : int
        Columns in the queue of a bank.
    hit_limit : int
        Columns after which a row may be closed for an older column of another row although further
        ones hit it, if that can be done before these can be read.
    write_columns : int
        Written columns that are kept; a write is answered when there is room.
    write_high, write_low : int
        Writes begin when so many wait, or nothing is read; reads go on when no more are left.
    arbitration : str
        Of commands that can go at once, "oldest": columns of open rows before others, the oldest
        first; "rotating": the banks take turns, whatever their command is.

    Raises
    ------
    ConfigError
        If a queue is empty, the limits for writes are not in order, or the arbitration is unknown.
    """

    window_columns: int = 32
    bank_queue_columns: int = 8
    hit_limit: int = 4
    write_columns: int = 32
    write_high: int = 24
    write_low: int = 8
    arbitration: str = "oldest"

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, not {getattr(self, name)}"
            for name in ("window_columns", "bank_queue_columns", "hit_limit", "write_columns")
            if getattr(self, name) < 1
        ]
        if not 0 <= self.write_low < self.write_high <= self.write_columns:
            problems.append(
                "write_low, write_high and write_columns must rise from 0, not "
                f"{self.write_low}, {self.write_high}, {self.write_columns}"
            )
        if self.arbitration not in ("oldest", "rotating"):
            problems.append(f"arbitration must be oldest or rotating, not {self.arbitration!r}")
        if problems:
            raise ConfigError(bulleted("memory controller", problems))


@dataclass(frozen=True, kw_only=True)
class Device:
    """All that is known of a memory.

    Attributes
    ----------
    name : str
    structure : Structure
    timing : Timing
    rails : tuple of Rail
        Of each device; none if its currents are not known.
    mapping : str
        Address mapping that is used if no other is asked for, see
        :class:`~hwsim.memory.mapping.AddressMapping`.
    control : Control
    """

    name: str
    structure: Structure
    timing: Timing
    rails: tuple[Rail, ...]
    mapping: str
    control: Control = Control()

    @property
    def peak_bytes_per_ns(self) -> Fraction:
        """Bytes per nanosecond (GB/s) of all channels without a gap."""
        clocks = max(self.timing.burst, self.timing.tCCD_S)
        of_channel = self.structure.column_bytes * 1000 / (clocks * self.timing.tCK_ps)
        return of_channel * self.structure.channels
