"""One DRAM channel: which command goes next, and when.

Nothing here runs clock by clock. The next command is the one that can go first; its clock follows
from what went before, and the state moves on to it.
"""

from array import array
from bisect import insort
from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from hwsim.memory.arbiter import first_row, next_turn, other_hit
from hwsim.memory.device import Control, Structure, Timing
from hwsim.memory.refresh import Refresh
from hwsim.memory.rows import CLOSED, Rows
from hwsim.memory.side import ARRIVAL, BANK, DUE, NEVER, ORDER, ROW, Column, Side

__all__ = ["Channel", "Command"]


class Command(NamedTuple):
    """A command: ACT, PRE, RD or WR of a bank, PREA or REF of a rank (bank and row are -1)."""

    clock: int
    name: str
    rank: int
    bank: int
    row: int


class Channel:
    """Banks behind one command bus and one data bus, and the queues in front of them.

    Columns to read arrive in order, one per clock at most, and wait in a window, from which the
    oldest enter the queue of their bank while that has room. Of the commands that can go first, one
    goes: a column of an open row before others, the oldest before younger ones. A row is closed
    when the oldest column in its bank's queue needs another one, and no column in the queue hits
    it or it has given ``hit_limit`` of them. Writes wait until ``write_high`` have come or nothing
    is read, and go until ``write_low`` are left, or none if nothing is read.

    Parameters
    ----------
    structure : Structure
    timing : Timing
    control : Control
    trace : list of Command, optional
        Every command is appended to it.

    Attributes
    ----------
    rows : Rows
    reads : int
        Columns read so far.
    write_clocks : array of int
        Clocks of all writes so far.
    """

    def __init__(
        self,
        structure: Structure,
        timing: Timing,
        control: Control,
        trace: list[Command] | None = None,
    ) -> None:
        self._timing, self._control = timing, control
        ranks, groups = structure.ranks, structure.ranks * structure.bank_groups
        banks = groups * structure.banks_per_group
        self._reads = Side("RD", timing, banks, groups, ranks, control.window_columns)
        self._writes = Side("WR", timing, banks, groups, ranks, NEVER)
        self._side = self._reads
        self.rows = Rows(structure, timing, self._reads.bank_ok, self._writes.bank_ok)
        self._refresh = Refresh(self.rows, ranks, timing.tREFI)
        self._rank_of_group = [group // structure.bank_groups for group in range(groups)]
        #: Columns that each bank's row has given since it was opened.
        self._given = [0] * banks
        #: Banks whose row is to be opened or closed, and a clock before which none of them can.
        self._row_work: set[int] = set()
        self._row_at = 0
        #: First clocks in which the bus takes a column and a row command.
        self._column_floor = self._row_floor = 0
        self._until = 0
        self._turn_bank = 0  # behind the bank that had the last turn
        self._unissued_writes = 0
        self._trace = trace
        self.reads = 0
        self.write_clocks = array("q")

    @property
    def incoming(self) -> deque[Column]:
        """Columns to read go here; arrivals must not decrease, nor be earlier than decisions."""
        return self._reads.incoming

    def write(self, column: Column) -> None:
        """Take a column to write, likewise."""
        self._unissued_writes += 1
        self._writes.incoming.append(column)

    @property
    def written(self) -> int:
        """Columns to write that have been taken."""
        return self._unissued_writes + len(self.write_clocks)

    def run(self, until: int, *, writes: int = NEVER) -> None:
        """Decide all commands before clock ``until``, or until ``writes`` have gone.

        What is taken later must arrive at ``until`` or later.
        """
        self._run(until, None, None, writes)

    def settle(self, wanted: Column, until: Callable[[int], int]) -> None:
        """Decide all commands up to that of a column, and on before the clock ``until(end)``.

        ``end`` is that of the column's data. What is taken later must arrive then or later.
        """
        self._run(NEVER, wanted, until, NEVER)

    def _run(
        self, until: int, wanted: Column | None, after: Callable[[int], int] | None, writes: int
    ) -> None:
        if until <= self._until:
            return
        timing, rows, row_work = self._timing, self.rows, self._row_work
        rank_of, group_of, open_row = rows.rank_of, rows.group_of, rows.open_row
        precharge_ok, given, refresh = rows.precharge_ok, self._given, self._refresh
        reads, split, pending = self._reads, timing.split_command_bus, refresh.pending
        one_rank, column_clocks = len(reads.rank_ok) == 1, timing.column_clocks
        control, trace = self._control, self._trace
        queue_columns, hit_limit = control.bank_queue_columns, control.hit_limit
        rotating = control.arbitration == "rotating"
        column_floor, row_floor = self._column_floor, self._row_floor
        horizon = min(until, refresh.due)
        side: Side | None = None
        read_count = 0
        while True:
            if side is not self._side:
                side = self._side
                incoming, window, window_columns = side.incoming, side.window, side.window_columns
                enter_at = side.enter_at
                queues, hits, hit_count = side.queues, side.hits, side.hit_count
                bank_ok, group_ok, rank_ok = side.bank_ok, side.group_ok, side.rank_ok
                same_group, same_rank, last_column = side.same_group, side.same_rank, side.last
                to_end, to_precharge = side.to_end, side.to_precharge
            # Arrivals up to now.
            now = column_floor if column_floor < row_floor else row_floor
            while incoming and len(window) < window_columns:
                entry = incoming[0]
                if enter_at < entry[ARRIVAL]:
                    enter_at = entry[ARRIVAL]
                if enter_at > now:
                    break
                enter_at += 1
                incoming.popleft()
                bank = entry[BANK]
                queue = queues[bank]
                if len(queue) >= queue_columns:
                    window.append(entry)
                elif entry[ROW] == open_row[bank] and not pending and bank not in row_work:
                    queue.append(entry)
                    hits.append(entry)
                    hit_count[bank] += 1
                else:
                    self._admit(side, entry)
            if self._unissued_writes or side is not reads:
                side.enter_at = enter_at
                if self._turn(now):
                    continue
            # The column that can go first, the oldest of them.
            first, lowest = NEVER, -1
            if hits:
                entry = hits[0]
                bank = entry[BANK]
                lowest = rank_ok[0] if one_rank else min(rank_ok)
                if lowest < column_floor:
                    lowest = column_floor
                first = group_ok[group_of[bank]]
                if first < lowest:
                    first = lowest
                if first < bank_ok[bank]:
                    first = bank_ok[bank]
                if not one_rank and first < rank_ok[rank_of[bank]]:
                    first = rank_ok[rank_of[bank]]
                if first > lowest and len(hits) > hit_count[bank]:
                    entry, first = other_hit(side, rows, entry, first, lowest)
                    bank = entry[BANK]
            # A row to be opened or closed before it.
            row_bank = CLOSED
            if rotating:
                first, row_bank, bank = next_turn(
                    side, rows, row_work, self._turn_bank, column_floor, row_floor
                )
                lowest = -1
                if bank != CLOSED:
                    entry = next(c for c in queues[bank] if c[ROW] == open_row[bank])
            elif row_work and row_floor < first and self._row_at < first:
                clock, row_bank, self._row_at = first_row(side, rows, row_work, row_floor)
                if clock < first:
                    first, lowest = clock, -1
                else:
                    row_bank = CLOSED
            # Before either, a refresh that is under way or becomes due, or an arrival.
            arrival = NEVER
            while incoming and len(window) < window_columns:
                other = incoming[0]
                arrival = enter_at if other[ARRIVAL] < enter_at else other[ARRIVAL]
                if arrival > first or arrival >= horizon or pending or self._unissued_writes:
                    break
                # One more that waits leaves what is first as it is, and so does a younger hit if
                # that is a hit which goes as soon as any could.
                place = other[BANK]
                queue = queues[place]
                if len(queue) >= queue_columns:
                    window.append(other)
                elif first == lowest and other[ROW] == open_row[place] and place not in row_work:
                    queue.append(other)
                    hits.append(other)
                    hit_count[place] += 1
                else:
                    break
                incoming.popleft()
                enter_at, arrival = arrival + 1, NEVER
            if self._unissued_writes:
                arrival = min(arrival, self._other().next_arrival())
            if first >= horizon or first >= arrival or pending:
                if pending:
                    clock, rank = refresh.command(row_floor)
                    if clock <= first and clock < min(arrival, refresh.due, until):
                        self._refresh_command(side, rank, clock)
                        row_floor = clock + timing.precharge_clocks
                        column_floor = max(column_floor, clock if split else row_floor)
                        continue
                if refresh.due <= first and refresh.due <= arrival and refresh.due < until:
                    self._clear(side, refresh.begin())
                    horizon = min(until, refresh.due)
                    continue
                if arrival <= first and arrival < until:
                    column_floor, row_floor = max(column_floor, arrival), max(row_floor, arrival)
                    continue
                if first >= until:
                    break
            if row_bank != CLOSED:
                row_floor = first + self._change_row(side, row_bank, first)
                column_floor = max(column_floor, first if split else row_floor)
                continue
            # The column goes.
            queue = queues[bank]
            if entry is hits[0]:
                del hits[0]
            else:
                hits.remove(entry)
            if entry is queue[0]:
                del queue[0]
            else:
                queue.remove(entry)
            hit_count[bank] -= 1
            given[bank] += 1
            entry[DUE] = first + to_end
            group = group_of[bank]
            last_column[group] = first
            group_ok[group] = first + same_group
            rank_ok[rank_of[bank]] = first + same_rank
            if not one_rank:
                self._hold_other_ranks(side, rank_of[bank], first)
            if precharge_ok[bank] < first + to_precharge:
                precharge_ok[bank] = first + to_precharge
            column_floor = first + column_clocks
            if not split:
                row_floor = column_floor
            elif row_floor < first:
                row_floor = first
            if queue and queue[0][ROW] != open_row[bank]:
                if not hit_count[bank] or given[bank] >= hit_limit:
                    row_work.add(bank)
                    self._row_at = 0
            if window:
                full = len(window) == window_columns
                if self._refill(side, bank) and full and enter_at <= first:
                    enter_at = first + 1
            if rotating:
                self._turn_bank = bank + 1
            if trace is not None:
                trace.append(Command(first, side.name, rank_of[bank], bank, entry[ROW]))
            if side is reads:
                read_count += 1
                if entry is wanted and after is not None:
                    until = after(entry[DUE])
                    horizon = min(until, refresh.due)
            else:
                self._unissued_writes -= 1
                self.write_clocks.append(first)
                if len(self.write_clocks) >= writes:
                    break
        self._column_floor, self._row_floor = column_floor, row_floor
        side.enter_at = enter_at
        self.reads += read_count
        if writes == NEVER:
            self._until = max(self._until, until)

    def _enqueue(self, side: Side, clock: int) -> None:
        """Let a column, which arrives now, into the queue of its bank, or the window."""
        column = side.incoming.popleft()
        side.enter_at = clock + 1
        if len(side.queues[column[BANK]]) < self._control.bank_queue_columns:
            self._admit(side, column)
        else:
            side.window.append(column)

    def _refill(self, side: Side, bank: int) -> bool:
        """Let the oldest column of a bank from the window into its queue, if there is one."""
        for i, column in enumerate(side.window):
            if column[BANK] == bank:
                del side.window[i]
                self._admit(side, column)
                return True
        return False

    def _admit(self, side: Side, column: Column) -> None:
        bank = column[BANK]
        queue = side.queues[bank]
        queue.append(column)
        if side is not self._side or self.rows.rank_of[bank] in self._refresh.pending:
            return
        if column[ROW] == self.rows.open_row[bank]:
            hits = side.hits
            if not hits or hits[-1][ORDER] < column[ORDER]:
                hits.append(column)
            else:
                insort(hits, column)
            side.hit_count[bank] += 1
            if self._row_work and self._given[bank] < self._control.hit_limit:
                self._row_work.discard(bank)
        elif len(queue) == 1:
            self._row_work.add(bank)
            self._row_at = 0

    def _change_row(self, side: Side, bank: int, clock: int) -> int:
        """Close the row of a bank, or open that of its oldest column; return clocks of the bus."""
        rows, timing = self.rows, self._timing
        row = rows.open_row[bank]
        if row != CLOSED:
            name, clocks = "PRE", timing.precharge_clocks
            rows.precharge(bank, clock)
            if side.hit_count[bank]:
                self._drop_hits(side, {bank})
        else:
            name, clocks = "ACT", timing.activate_clocks
            row = side.queues[bank][0][ROW]
            rows.activate(bank, row, clock)
            self._given[bank] = 0
            self._row_work.remove(bank)
            for column in side.queues[bank]:
                if column[ROW] == row:
                    insort(side.hits, column)
                    side.hit_count[bank] += 1
        self._row_at = 0
        self._turn_bank = bank + 1
        if self._trace is not None:
            self._trace.append(Command(clock, name, rows.rank_of[bank], bank, row))
        return clocks

    def _drop_hits(self, side: Side, banks: Container[int]) -> None:
        side.hits[:] = [column for column in side.hits if column[BANK] not in banks]
        for bank, hits in enumerate(side.hit_count):
            if hits and bank in banks:
                side.hit_count[bank] = 0

    def _refresh_command(self, side: Side, rank: int, clock: int) -> None:
        name = self._refresh.go(rank, clock)
        if name == "REF":
            self._row_work.update(bank for bank in self.rows.banks(rank) if side.queues[bank])
            self._row_at = 0
        if self._trace is not None:
            self._trace.append(Command(clock, name, rank, -1, -1))

    def _clear(self, side: Side, rank: int) -> None:
        """Leave a rank to its refresh."""
        self._drop_hits(side, self.rows.banks(rank))
        self._row_work.difference_update(self.rows.banks(rank))

    def _hold_other_ranks(self, side: Side, rank: int, clock: int) -> None:
        for other, ok in enumerate(side.rank_ok):
            if other != rank:
                side.rank_ok[other] = max(ok, clock + side.other_rank)

    def _other(self) -> Side:
        return self._writes if self._side is self._reads else self._reads

    def _turn(self, now: int) -> bool:
        """Serve the other direction from now on, if its time has come."""
        control, other = self._control, self._other()
        while (clock := other.next_arrival()) <= now:
            self._enqueue(other, clock)
        reads = any(self._reads.queues)  # a window is never filled before a queue
        writes = self._unissued_writes - len(self._writes.incoming)
        if other is self._writes:
            turn = writes >= control.write_high or (writes > 0 and not reads)
        else:
            turn = not writes or (reads and writes <= control.write_low)
        if turn:
            self._serve(other)
        return turn

    def _serve(self, side: Side) -> None:
        timing, rows, old = self._timing, self.rows, self._side
        old.hits.clear()
        old.hit_count[:] = [0] * len(old.hit_count)
        data_start = side.to_end - timing.burst
        apart = max(1, old.to_end + timing.tRTRS - data_start)
        if side is self._writes:
            distances = (timing.tRTW, timing.tRTW, apart)
        else:
            distances = (old.to_end + timing.tWTR_L, old.to_end + timing.tWTR_S, apart)
        side.follow(old, self._rank_of_group, *distances)
        self._side = side
        self._row_work.clear()
        self._row_at = 0
        for bank, queue in enumerate(side.queues):
            if not queue or rows.rank_of[bank] in self._refresh.pending:
                continue
            hits = [column for column in queue if column[ROW] == rows.open_row[bank]]
            side.hits += hits
            side.hit_count[bank] = len(hits)
            if queue[0][ROW] != rows.open_row[bank]:
                if not hits or self._given[bank] >= self._control.hit_limit:
                    self._row_work.add(bank)
        side.hits.sort()
