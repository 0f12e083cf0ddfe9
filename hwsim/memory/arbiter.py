"""Which of the commands that a channel could give goes first."""

from collections.abc import Set

from hwsim.memory.rows import CLOSED, Rows
from hwsim.memory.side import BANK, NEVER, ORDER, Column, Side

__all__ = ["first_row", "next_turn", "other_hit"]


def other_hit(side: Side, rows: Rows, entry: Column, first: int, lowest: int) -> tuple[Column, int]:
    """Of the columns of open rows, the oldest of those that can go first, and its clock.

    Parameters
    ----------
    side : Side
    rows : Rows
    entry, first
        The oldest of all, and its clock.
    lowest : int
        A clock before which none can go.
    """
    group_of, rank_of = rows.group_of, rows.rank_of
    group_ok, rank_ok, bank_ok = side.group_ok, side.rank_ok, side.bank_ok
    tried = entry[BANK]
    for other in side.hits:
        bank = other[BANK]
        if bank == tried:
            continue
        tried = bank
        clock = group_ok[group_of[bank]]
        if clock < bank_ok[bank]:
            clock = bank_ok[bank]
        if clock < rank_ok[rank_of[bank]]:
            clock = rank_ok[rank_of[bank]]
        if clock <= lowest:
            return other, lowest
        if clock < first:
            entry, first = other, clock
    return entry, first


def first_row(side: Side, rows: Rows, banks: Set[int], floor: int) -> tuple[int, int, int]:
    """The next row to be opened or closed, that for the oldest column if several can be.

    Parameters
    ----------
    side : Side
    rows : Rows
    banks : set of int
        Those whose row is to change.
    floor : int
        First clock in which the bus takes the command.

    Returns
    -------
    clock, bank, soonest : int
        ``soonest`` is a clock before which no row can change, but for the bus.
    """
    queues, change_clock = side.queues, rows.change_clock
    first, oldest, chosen, soonest = NEVER, NEVER, CLOSED, NEVER
    for bank in banks:
        clock = change_clock(bank)
        if clock < soonest:
            soonest = clock
        if clock < floor:
            clock = floor
        order = queues[bank][0][ORDER]
        if clock < first or (clock == first and order < oldest):
            first, oldest, chosen = clock, order, bank
    return first, chosen, soonest


def next_turn(
    side: Side, rows: Rows, row_banks: Set[int], start: int, column_floor: int, row_floor: int
) -> tuple[int, int, int]:
    """The next command if banks take turns, from bank ``start`` on.

    Returns
    -------
    clock, row_bank, column_bank : int
        One of the banks is ``CLOSED``, or both if nothing can go.
    """
    banks = len(side.queues)
    first, chosen, of_row = NEVER, CLOSED, False
    for turn in range(start, start + banks):
        bank = turn % banks
        column = row = NEVER
        if side.hit_count[bank]:
            group_ok = side.group_ok[rows.group_of[bank]]
            rank_ok = side.rank_ok[rows.rank_of[bank]]
            column = max(column_floor, side.bank_ok[bank], group_ok, rank_ok)
        if bank in row_banks:
            row = max(row_floor, rows.change_clock(bank))
        if min(row, column) < first:
            first, chosen, of_row = min(row, column), bank, row <= column
    return (first, chosen, CLOSED) if of_row else (first, CLOSED, chosen)
