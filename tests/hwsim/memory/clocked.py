"""The same controller, clock by clock: slow and simple, its timing by the rules of ``jedec``.

It shares no code with the model that it stands against, only the description of devices.
"""

from dataclasses import dataclass, field

from hwsim.memory import Command, Control, Structure, Timing
from tests.hwsim.memory.jedec import Checker


@dataclass
class Access:
    """A column to read or write, in order of its number."""

    number: int
    arrival: int
    bank: int
    row: int


@dataclass
class Direction:
    """Columns of one direction."""

    name: str
    room: int
    coming: list[Access]
    window: list[Access] = field(default_factory=list)
    queues: dict[int, list[Access]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.window) + sum(map(len, self.queues.values()))


class Clocked:
    """A channel, one clock at a time."""

    def __init__(
        self,
        structure: Structure,
        timing: Timing,
        control: Control,
        reads: list[Access],
        writes: list[Access],
    ) -> None:
        self.structure, self.timing, self.control = structure, timing, control
        self.checker = Checker(structure, timing)
        self.reads = Direction("RD", control.window_columns, reads)
        self.writes = Direction("WR", 1 << 60, writes)
        self.served = self.reads
        self.given: dict[int, int] = {}
        self.pending: set[int] = set()
        self.trace: list[Command] = []
        self.free = {"column": 0, "row": 0}
        self.turn = 0
        self.banks = structure.ranks * structure.bank_groups * structure.banks_per_group

    def run(self, clocks: int) -> list[Command]:
        for clock in range(clocks):
            self.arrive(clock)
            while min(self.free.values()) <= clock:
                self.choose_direction()
                command = self.choose(clock)
                if command is None:
                    break
                self.issue(command)
        return self.trace

    def arrive(self, clock: int) -> None:
        """One column of each direction, and the refreshes that are due."""
        for direction in (self.reads, self.writes):
            if (
                direction.coming
                and direction.coming[0].arrival <= clock
                and len(direction.window) < direction.room
            ):
                direction.window.append(direction.coming.pop(0))
                self.refill(direction)
        interval, ranks = self.timing.tREFI, self.structure.ranks
        for rank in range(ranks if interval else 0):
            first = (rank + 1) * interval // ranks
            if clock >= first and (clock - first) // interval >= self.refreshed(rank):
                self.pending.add(rank)

    def refreshed(self, rank: int) -> int:
        return sum(c.name == "REF" and c.rank == rank for c in self.trace)

    def refill(self, direction: Direction) -> None:
        for access in list(direction.window):
            queue = direction.queues.setdefault(access.bank, [])
            if len(queue) < self.control.bank_queue_columns:
                queue.append(access)
                direction.window.remove(access)

    def choose_direction(self) -> None:
        reads, writes, control = self.reads.waiting, self.writes.waiting, self.control
        if self.served is self.reads:
            if writes >= control.write_high or (writes and not reads):
                self.served = self.writes
        elif not writes or (reads and writes <= control.write_low):
            self.served = self.reads

    def rank(self, bank: int) -> int:
        return bank * self.structure.ranks // self.banks

    def choose(self, clock: int) -> Command | None:
        for rank in sorted(self.pending):
            for name in ("PREA", "REF"):
                command = Command(clock, name, rank, -1, -1)
                if self.possible(command):
                    return command
        columns: list[tuple[int, Command]] = []
        rows: list[tuple[int, Command]] = []
        for bank, queue in self.served.queues.items():
            if not queue or self.rank(bank) in self.pending:
                continue
            for order, command in self.wanted(clock, bank, queue):
                if self.possible(command):
                    kind = columns if command.name in ("RD", "WR") else rows
                    kind.append((order, command))
        if self.control.arbitration == "rotating":
            # What a bank wants first comes first.
            both = sorted(rows + columns, key=lambda c: (c[1].bank - self.turn) % self.banks)
            return both[0][1] if both else None
        chosen = min(columns or rows, default=None)
        return chosen[1] if chosen else None

    def wanted(self, clock: int, bank: int, queue: list[Access]) -> list[tuple[int, Command]]:
        """Commands that would help a bank's columns: a row command before columns."""
        rank, row = self.rank(bank), self.checker.open_row(bank)
        if row is None:
            return [(queue[0].number, Command(clock, "ACT", rank, bank, queue[0].row))]
        hits = [access for access in queue if access.row == row]
        commands = []
        full = self.given.get(bank, 0) >= self.control.hit_limit
        if queue[0].row != row and (not hits or full):
            commands.append((queue[0].number, Command(clock, "PRE", rank, bank, row)))
        if hits:
            commands.append((hits[0].number, Command(clock, self.served.name, rank, bank, row)))
        return commands

    def possible(self, command: Command) -> bool:
        bus = "column" if command.name in ("RD", "WR") else "row"
        return command.clock >= self.free[bus] and self.checker.legal(command)

    def issue(self, command: Command) -> None:
        self.checker.take(command)
        self.trace.append(command)
        timing, name = self.timing, command.name
        column = name in ("RD", "WR")
        length = {"ACT": timing.activate_clocks, "RD": timing.column_clocks}
        length["WR"] = length["RD"]
        for bus in ("column", "row"):
            own = (bus == "column") == column or not timing.split_command_bus
            clocks = length.get(name, timing.precharge_clocks) if own else 0
            self.free[bus] = max(self.free[bus], command.clock + clocks)
        if name == "REF":
            self.pending.remove(command.rank)
        elif name == "ACT":
            self.given[command.bank] = 0
        if column:
            queue = self.served.queues[command.bank]
            queue.remove(next(access for access in queue if access.row == command.row))
            self.given[command.bank] += 1
            self.refill(self.served)
        if command.bank >= 0:
            self.turn = command.bank + 1
