"""The rules of DRAM commands, written down once more, and a check of recorded commands by them.

Nothing here comes from the model: rules are pairs of commands and the clocks between them, looked
up for every pair.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hwsim.memory import Command, Structure, Timing

ROW_COMMANDS = ("ACT", "PRE", "PREA", "REF")
Scope = Callable[[Command, Command, Structure], bool]


def same_bank(a: Command, b: Command, s: Structure) -> bool:
    return a.bank == b.bank


def same_rank(a: Command, b: Command, s: Structure) -> bool:
    return a.rank == b.rank


def other_rank(a: Command, b: Command, s: Structure) -> bool:
    return a.rank != b.rank


def same_group(a: Command, b: Command, s: Structure) -> bool:
    return a.bank // s.banks_per_group == b.bank // s.banks_per_group


def anywhere(a: Command, b: Command, s: Structure) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    scope: Scope
    clocks: int


@dataclass(frozen=True)
class Distance:
    """A pair of commands that a rule keeps apart."""

    rule: Rule
    first: Command
    second: Command

    @property
    def slack(self) -> int:
        return self.second.clock - self.first.clock - self.rule.clocks


def rules(t: Timing) -> list[Rule]:
    """All that holds between two commands."""
    read, write, columns = ("RD",), ("WR",), ("RD", "WR")
    activate, refresh = ("ACT",), ("REF",)
    read_data, write_data = t.CL + t.tDQSCK, t.CWL + t.tDQSS
    pairs = [
        Rule("tRC", activate, activate, same_bank, t.tRC),
        Rule("tRC", activate, refresh, same_rank, t.tRC),
        Rule("tRCDRD", activate, read, same_bank, t.tRCDRD),
        Rule("tRCDWR", activate, write, same_bank, t.tRCDWR),
        Rule("tRAS", activate, ("PRE",), same_bank, t.tRAS),
        Rule("tRAS", activate, ("PREA",), same_rank, t.tRAS),
        Rule("tRP", ("PRE",), activate, same_bank, t.tRP),
        Rule("tRP", ("PRE",), refresh, same_rank, t.tRP),
        Rule("tRPab", ("PREA",), (*activate, *refresh), same_rank, t.tRPab),
        Rule("tRTP", read, ("PRE",), same_bank, t.tRTP),
        Rule("tRTP", read, ("PREA",), same_rank, t.tRTP),
        Rule("tWR", write, ("PRE",), same_bank, write_data + t.burst + t.tWR),
        Rule("tWR", write, ("PREA",), same_rank, write_data + t.burst + t.tWR),
        Rule("tCCD_S", read, read, same_rank, t.tCCD_S),
        Rule("tCCD_S", write, write, same_rank, t.tCCD_S),
        Rule("tCCD_L", read, read, same_group, t.tCCD_L),
        Rule("tCCD_L", write, write, same_group, t.tCCD_L),
        Rule("tRRD_S", activate, activate, same_rank, t.tRRD_S),
        Rule("tRRD_L", activate, activate, same_group, t.tRRD_L),
        Rule("tWTR_S", write, read, same_rank, write_data + t.burst + t.tWTR_S),
        Rule("tWTR_L", write, read, same_group, write_data + t.burst + t.tWTR_L),
        Rule("tRTW", read, write, same_rank, t.tRTW),
        Rule("tPPD", ("PRE", "PREA"), ("PRE", "PREA"), same_rank, t.tPPD),
        Rule("tRFC", refresh, (*activate, *refresh, "PRE", "PREA"), same_rank, t.tRFC),
        # The data bus: one burst behind the other, with a gap between ranks.
        Rule("burst", read, read, anywhere, t.burst),
        Rule("burst", write, write, anywhere, t.burst),
        Rule("burst", read, write, anywhere, read_data + t.burst - write_data),
        Rule("burst", write, read, anywhere, write_data + t.burst - read_data),
        Rule("tRTRS", read, read, other_rank, t.burst + t.tRTRS),
        Rule("tRTRS", write, write, other_rank, t.burst + t.tRTRS),
        Rule("tRTRS", read, write, other_rank, read_data + t.burst + t.tRTRS - write_data),
        Rule("tRTRS", write, read, other_rank, write_data + t.burst + t.tRTRS - read_data),
    ]
    lengths = {
        "activate_clocks": activate,
        "column_clocks": columns,
        "precharge_clocks": ("PRE", "PREA", "REF"),
    }
    for name, first in lengths.items():
        on_bus = columns if first == columns else ROW_COMMANDS
        second = on_bus if t.split_command_bus else (*columns, *ROW_COMMANDS)
        pairs.append(Rule(name, first, second, anywhere, getattr(t, name)))
    return pairs


class Checker:
    """Finds the distances between commands, in the order in which they are given."""

    def __init__(self, structure: Structure, timing: Timing) -> None:
        self._structure, self._timing = structure, timing
        self._rules = [rule for rule in rules(timing) if rule.clocks > 0]
        self._memory = max(rule.clocks for rule in self._rules) + timing.tFAW
        self._recent: deque[Command] = deque()
        banks = structure.ranks * structure.bank_groups * structure.banks_per_group
        self._per_rank = banks // structure.ranks
        self._open: list[int | None] = [None] * banks

    def distances(self, command: Command) -> Iterator[Distance]:
        """Between a command and those before it that it must keep clear of."""
        activates = []
        for earlier in self._recent:
            for rule in self._rules:
                if (
                    earlier.name in rule.first
                    and command.name in rule.second
                    and rule.scope(earlier, command, self._structure)
                ):
                    yield Distance(rule, earlier, command)
            if earlier.name == "ACT" and earlier.rank == command.rank:
                activates.append(earlier)
        if command.name == "ACT" and len(activates) >= 4:
            yield Distance(
                Rule("tFAW", ("ACT",), ("ACT",), same_rank, self._timing.tFAW),
                activates[-4],
                command,
            )

    def legal(self, command: Command) -> bool:
        """Whether it may come next: bank in the right state, every distance kept."""
        return self.possible(command) and all(d.slack >= 0 for d in self.distances(command))

    def possible(self, command: Command) -> bool:
        """Whether its bank, or all of its rank, is in the right state."""
        if command.name in ("PREA", "REF"):
            first = command.rank * self._per_rank
            closed = all(row is None for row in self._open[first : first + self._per_rank])
            return closed == (command.name == "REF")
        if command.bank // self._per_rank != command.rank:
            return False
        row = self._open[command.bank]
        return row is None if command.name == "ACT" else row == command.row

    def take(self, command: Command) -> None:
        """It has come."""
        if command.name == "ACT":
            self._open[command.bank] = command.row
        elif command.name == "PRE":
            self._open[command.bank] = None
        elif command.name == "PREA":
            first = command.rank * self._per_rank
            self._open[first : first + self._per_rank] = [None] * self._per_rank
        self._recent.append(command)
        while self._recent[0].clock < command.clock - self._memory:
            self._recent.popleft()

    def open_row(self, bank: int) -> int | None:
        return self._open[bank]


def violations(
    commands: Iterable[Command], structure: Structure, timing: Timing
) -> tuple[list[str], dict[str, int]]:
    """What is wrong with recorded commands, and the least slack of each rule."""
    checker = Checker(structure, timing)
    found: list[str] = []
    slack: dict[str, int] = {}
    for command in commands:
        if not checker.possible(command):
            found.append(f"state: {command}")
        for distance in checker.distances(command):
            name = distance.rule.name
            slack[name] = min(slack.get(name, distance.slack), distance.slack)
            if distance.slack < 0:
                found.append(f"{name}: {distance.first} {distance.second}")
        checker.take(command)
    return found, slack


def late_refreshes(commands: Iterable[Command], timing: Timing, ranks: int, end: int) -> list[str]:
    """Refreshes that are missing, or later than the next one is due."""
    found = []
    for rank in range(ranks):
        clocks = [c.clock for c in commands if c.name == "REF" and c.rank == rank]
        first = (rank + 1) * timing.tREFI // ranks
        due = range(first, end, timing.tREFI)
        for number, since in enumerate(due):
            if since + timing.tREFI > end:
                break
            if number >= len(clocks) or not since <= clocks[number] < since + timing.tREFI:
                found.append(f"rank {rank}: refresh {number} due at {since}")
    return found
