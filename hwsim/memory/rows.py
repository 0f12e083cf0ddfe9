"""Rows of a channel's banks: which are open, and when the next can be opened, closed, refreshed."""

from collections import deque

from hwsim.memory.device import Structure, Timing

__all__ = ["CLOSED", "Rows"]

#: Stands for the row of a bank in which none is open.
CLOSED = -1


class Rows:
    """Timing of activate, precharge and refresh in one channel.

    Parameters
    ----------
    structure : Structure
    timing : Timing
    read_ok, write_ok : list of int
        By bank: first clock for a read and for a write, set here when a row is opened.

    Attributes
    ----------
    rank_of, group_of : list of int
        By bank; groups are counted over all ranks.
    open_row : list of int
        By bank.
    precharge_ok : list of int
        By bank: first clock in which its row may be closed.
    activates, refreshes : int
        Commands so far.
    """

    def __init__(
        self, structure: Structure, timing: Timing, read_ok: list[int], write_ok: list[int]
    ) -> None:
        self._timing = timing
        self._read_ok, self._write_ok = read_ok, write_ok
        ranks = structure.ranks
        self._banks_per_rank = structure.bank_groups * structure.banks_per_group
        banks = ranks * self._banks_per_rank
        self.rank_of = [bank // self._banks_per_rank for bank in range(banks)]
        self.group_of = [bank // structure.banks_per_group for bank in range(banks)]
        self.open_row = [CLOSED] * banks
        self.precharge_ok = [0] * banks
        self._activate_ok = [0] * banks
        self._group_ok = [0] * (ranks * structure.bank_groups)
        self._rank_ok = [0] * ranks
        self._rank_precharge_ok = [0] * ranks
        self._last_four: list[deque[int]] = [deque(maxlen=4) for _ in range(ranks)]
        self._open_banks = [0] * ranks
        self._active_since = [0] * ranks
        self._active_clocks = 0
        self.activates = self.refreshes = 0

    def banks(self, rank: int) -> range:
        """Banks of a rank."""
        return range(rank * self._banks_per_rank, (rank + 1) * self._banks_per_rank)

    def any_open(self, rank: int) -> bool:
        """Whether a row of the rank is open."""
        return bool(self._open_banks[rank])

    def change_clock(self, bank: int) -> int:
        """First clock in which the bank's row may be closed, or one opened if none is open."""
        rank = self.rank_of[bank]
        if self.open_row[bank] != CLOSED:
            clock, limit = self.precharge_ok[bank], self._rank_precharge_ok[rank]
            return clock if clock > limit else limit
        clock, limit = self._activate_ok[bank], self._rank_ok[rank]
        if clock < limit:
            clock = limit
        limit = self._group_ok[self.group_of[bank]]
        return clock if clock > limit else limit

    def activate(self, bank: int, row: int, clock: int) -> None:
        """Open a row."""
        timing, rank = self._timing, self.rank_of[bank]
        self.open_row[bank] = row
        self._activate_ok[bank] = clock + timing.tRC
        self._read_ok[bank] = clock + timing.tRCDRD
        self._write_ok[bank] = clock + timing.tRCDWR
        self.precharge_ok[bank] = clock + timing.tRAS
        self._group_ok[self.group_of[bank]] = clock + timing.tRRD_L
        self._rank_ok[rank] = clock + timing.tRRD_S
        last = self._last_four[rank]
        last.append(clock)
        if len(last) == 4:
            self._rank_ok[rank] = max(self._rank_ok[rank], last[0] + timing.tFAW)
        if not self._open_banks[rank]:
            self._active_since[rank] = clock
        self._open_banks[rank] += 1
        self.activates += 1

    def precharge(self, bank: int, clock: int) -> None:
        """Close the row of a bank."""
        rank = self.rank_of[bank]
        self.open_row[bank] = CLOSED
        self._activate_ok[bank] = max(self._activate_ok[bank], clock + self._timing.tRP)
        self._rank_precharge_ok[rank] = clock + self._timing.tPPD
        self._open_banks[rank] -= 1
        if not self._open_banks[rank]:
            self._active_clocks += clock - self._active_since[rank]

    def refresh_clock(self, rank: int) -> int:
        """First clock in which the rows of a rank may be closed, or, if they are, refreshed."""
        if self._open_banks[rank]:
            banks = (b for b in self.banks(rank) if self.open_row[b] != CLOSED)
            return max(self._rank_precharge_ok[rank], *(self.precharge_ok[b] for b in banks))
        return max(self._activate_ok[bank] for bank in self.banks(rank))

    def precharge_all(self, rank: int, clock: int) -> None:
        """Close all rows of a rank."""
        for bank in self.banks(rank):
            self.open_row[bank] = CLOSED
            self._activate_ok[bank] = max(self._activate_ok[bank], clock + self._timing.tRPab)
        self._rank_precharge_ok[rank] = clock + self._timing.tPPD
        self._open_banks[rank] = 0
        self._active_clocks += clock - self._active_since[rank]

    def refresh(self, rank: int, clock: int) -> None:
        """Refresh a rank."""
        for bank in self.banks(rank):
            self._activate_ok[bank] = clock + self._timing.tRFC
        self.refreshes += 1

    def active_clocks(self, clock: int) -> int:
        """Clocks before ``clock`` in which ranks had a row open, summed over ranks."""
        still = (
            max(0, clock - since)
            for since, banks in zip(self._active_since, self._open_banks, strict=True)
            if banks
        )
        return self._active_clocks + sum(still)
