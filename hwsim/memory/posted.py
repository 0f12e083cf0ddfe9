"""Writes in the care of a memory controller, answered before they are in the memory."""

from collections import deque

from hwsim.memory.channel import Channel
from hwsim.memory.mapping import AddressMapping
from hwsim.memory.side import DUE, NEVER, Column

__all__ = ["PostedWrites"]

_CHANNEL = 5  # what is remembered of a column behind what a channel needs
_FORGET = 1024


class PostedWrites:
    """Written beats become columns, and wait for their answers.

    A column goes to its channel when all of its bytes have come, or another one is written. A beat
    is answered when fewer than ``capacity`` columns that were written before it wait.

    Parameters
    ----------
    channels : list of Channel
    mapping : AddressMapping
    column_bytes : int
    capacity : int
        Columns of a channel that the controller keeps.
    """

    def __init__(
        self, channels: list[Channel], mapping: AddressMapping, column_bytes: int, capacity: int
    ) -> None:
        self._channels, self._mapping = channels, mapping
        self._column_bytes, self._capacity = column_bytes, capacity
        self._open, self._open_bytes = -1, 0  # the column that has begun
        self._columns: dict[int, Column] = {}  # by number, those that may still wait
        self._order = 0
        # Of each beat: arrival, channel, columns written to that before.
        self._beats: deque[tuple[int, Channel, int]] = deque()
        self._first = 0  # ticket of the first of them

    def write(self, arrival: int, address: int, nbytes: int) -> int:
        """Take a beat that arrives in a clock; return its ticket."""
        size, end = self._column_bytes, address + nbytes
        for number in range(address // size, -(-end // size)):
            channel = self._channels[self._mapping.place(number)[0]]
            before = channel.written
            if number != self._open:
                self._hand_over(arrival)
                self._open = number
            self._open_bytes += min(end, (number + 1) * size) - max(address, number * size)
            if self._open_bytes >= size:
                self._hand_over(arrival)
        self._beats.append((arrival, channel, before))
        return self._first + len(self._beats) - 1

    def _hand_over(self, arrival: int) -> None:
        if self._open < 0:
            return
        channel, bank, row = self._mapping.place(self._open)
        column = [self._order, bank, row, arrival, -1, channel]
        self._channels[channel].write(column)
        self._order += 1
        self._columns[self._open] = column
        self._open, self._open_bytes = -1, 0
        if len(self._columns) > _FORGET:
            self._columns = {n: c for n, c in self._columns.items() if c[DUE] < 0}

    def __bool__(self) -> bool:
        """Whether any column may still wait."""
        return bool(self._columns) or self._open >= 0

    def waits(self, number: int, clock: int) -> bool:
        """Whether a column still waits in a clock; nothing arrives before it any more."""
        if number == self._open:
            return True
        column = self._columns.get(number)
        if column is None:
            return False
        if column[DUE] < 0:
            self._channels[column[_CHANNEL]].run(clock)
        if column[DUE] < 0:
            return True
        del self._columns[number]
        return False

    def answered(self, ticket: int, known: int, *, settle: bool) -> int | None:
        """Clock in which a beat is answered; None if that is not decided before clock ``known``.

        With ``settle``, nothing arrives before that clock, whichever it is.
        """
        while self._first < ticket:
            self._beats.popleft()
            self._first += 1
        arrival, channel, before = self._beats[0]
        gone = before - self._capacity + 1
        if gone <= 0:
            return arrival
        clocks = channel.write_clocks
        if len(clocks) < gone:
            channel.run(NEVER if settle else known, writes=gone)
        return max(arrival, clocks[gone - 1]) if len(clocks) >= gone else None
