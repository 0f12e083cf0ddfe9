"""Columns of one direction, reads or writes: where they wait, and when the next may go."""

from collections import deque

from hwsim.memory.device import Timing

__all__ = ["ARRIVAL", "BANK", "DUE", "NEVER", "ORDER", "ROW", "Column", "Side"]

#: One access of a column: a number that orders them, bank, row, clock of arrival, clock in which
#: its data have been transferred (-1 until that is decided), and behind these what its owner wants
#: to remember. A list, because millions are made.
Column = list[int]
ORDER, BANK, ROW, ARRIVAL, DUE = range(5)

#: Later than all that happens.
NEVER = 1 << 62


class Side:
    """The columns of one direction that wait in a channel.

    Parameters
    ----------
    name : str
        Of the command, RD or WR.
    timing : Timing
    banks, groups, ranks : int
        Of the channel.
    window_columns : int
        Columns that may wait for room in the queue of their bank.

    Attributes
    ----------
    incoming : deque of Column
        Not arrived, or without room in the window; in order of arrival.
    window : list of Column
        Waiting for room in the queue of their bank, in order.
    enter_at : int
        First clock in which the next column may arrive: one per clock does, and while the window is
        full, none.
    queues : list of list of Column
        By bank, in order.
    hits : list of Column
        Those in queues whose row is open, in order; only while this direction is served.
    hit_count : list of int
        Number of them by bank.
    bank_ok, group_ok, rank_ok : list of int
        First clock in which a bank, a group of banks or a rank can take the next column.
    last : list of int
        Clock of the last column by group, 0 if there was none.
    same_group, same_rank, other_rank : int
        Clocks between columns of this direction.
    to_precharge, to_end : int
        Clocks from a column to the precharge of its bank, and to the end of its data.
    """

    def __init__(
        self, name: str, timing: Timing, banks: int, groups: int, ranks: int, window_columns: int
    ) -> None:
        self.name = name
        self.incoming: deque[Column] = deque()
        self.window: list[Column] = []
        self.window_columns = window_columns
        self.enter_at = 0
        self.queues: list[list[Column]] = [[] for _ in range(banks)]
        self.hits: list[Column] = []
        self.hit_count = [0] * banks
        self.bank_ok, self.group_ok, self.rank_ok = [0] * banks, [0] * groups, [0] * ranks
        self.last = [0] * groups
        self.same_group = max(timing.tCCD_L, timing.burst)
        self.same_rank = max(timing.tCCD_S, timing.burst)
        self.other_rank = timing.burst + timing.tRTRS
        if name == "RD":
            self.to_precharge, self.to_end = timing.tRTP, timing.read_end
        else:
            self.to_precharge, self.to_end = timing.write_end + timing.tWR, timing.write_end

    def next_arrival(self) -> int:
        """Clock in which the next column arrives, if the window has room by itself."""
        if self.incoming and len(self.window) < self.window_columns:
            return max(self.incoming[0][ARRIVAL], self.enter_at)
        return NEVER

    def follow(
        self, other: "Side", rank_of_group: list[int], same_group: int, same_rank: int, apart: int
    ) -> None:
        """Keep the distances to the last columns of the other direction.

        Parameters
        ----------
        other : Side
            Served until now.
        rank_of_group : list of int
        same_group, same_rank, apart : int
            Clocks from its columns to those of this direction in the same group, in the same rank,
            and in another rank.
        """
        for group, clock in enumerate(other.last):
            if clock:
                self.group_ok[group] = max(self.group_ok[group], clock + same_group)
                for rank, ok in enumerate(self.rank_ok):
                    distance = same_rank if rank_of_group[group] == rank else apart
                    self.rank_ok[rank] = max(ok, clock + distance)
