"""When the ranks of a channel are refreshed."""

from hwsim.memory.rows import Rows
from hwsim.memory.side import NEVER

__all__ = ["Refresh"]


class Refresh:
    """Refreshes of a channel's ranks, in turn: one of each rank every tREFI.

    A rank whose refresh is due takes no other command. Its rows are closed as soon as they may be,
    and the refresh follows as soon as it may.

    Parameters
    ----------
    rows : Rows
    ranks, interval : int
        tREFI, 0 for no refresh.

    Attributes
    ----------
    due : int
        Clock in which the next one becomes due.
    pending : dict of int to int
        Ranks whose refresh is due, and since when.
    """

    def __init__(self, rows: Rows, ranks: int, interval: int) -> None:
        self._rows, self._interval = rows, interval
        self._due = [(r + 1) * interval // ranks if interval else NEVER for r in range(ranks)]
        self.due = min(self._due)
        self.pending: dict[int, int] = {}

    def begin(self) -> int:
        """The rank that is due becomes pending."""
        rank = self._due.index(self.due)
        self.pending[rank] = self.due
        self._due[rank] += self._interval
        self.due = min(self._due)
        return rank

    def command(self, floor: int) -> tuple[int, int]:
        """Clock, at least ``floor``, and rank of the next command of those that are pending."""
        clock_of = self._rows.refresh_clock
        return min((max(clock_of(r), since, floor), r) for r, since in self.pending.items())

    def go(self, rank: int, clock: int) -> str:
        """Give that command: PREA if a row is open, else REF, and the rank is free again."""
        if self._rows.any_open(rank):
            self._rows.precharge_all(rank, clock)
            return "PREA"
        self._rows.refresh(rank, clock)
        del self.pending[rank]
        return "REF"
