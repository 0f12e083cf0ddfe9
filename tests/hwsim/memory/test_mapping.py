"""Addresses to channels, banks and rows."""

from collections import Counter
from itertools import permutations

import pytest

from hwsim.memory import Command, Dram, Structure
from hwsim.memory.mapping import FIELDS, AddressMapping
from tests.hwsim.memory.devices import SMALL, device
from vq.errors import ConfigError

STRUCTURE = Structure(
    channels=2, ranks=2, bank_groups=2, banks_per_group=4, rows=4, row_bytes=128, column_bytes=16
)
COLUMNS = 2 * 2 * 2 * 4 * 4 * 8


def place(order: str, number: int) -> tuple[int, int, int]:
    """Channel, bank and row that are opened for a column."""
    trace: list[list[Command]] = [[], []]
    memory = Dram(device(SMALL, STRUCTURE), mapping=order, trace=trace)
    memory.request(0, number * STRUCTURE.column_bytes, 1, STRUCTURE.column_bytes)
    memory.ready_cycle(settle=True)
    ((channel, command),) = (
        (channel, commands[0]) for channel, commands in enumerate(trace) if commands
    )
    assert command.name == "ACT"
    return channel, command.bank, command.row


def test_by_hand() -> None:
    """Column number, from the highest bit: row 2 bits, rank, group, bank 2, column 3, channel."""
    assert place("rorabgbacoch", 0b10_1_0_11_101_1) == (1, 0b1_0_11, 0b10)
    # Bank numbers are rank, group, bank, wherever their bits are.
    assert place("chbabgrocora", 0b1_11_0_10_101_1) == (1, 0b1_0_11, 0b10)


@pytest.mark.parametrize("order", ["".join(p) for p in permutations(FIELDS)][::37])
def test_every_place_is_used_once(order: str) -> None:
    places = Counter(place(order, number) for number in range(COLUMNS))
    assert set(places.values()) == {8} and len(places) == COLUMNS // 8
    assert places.keys() == {
        (channel, bank, row) for channel in range(2) for bank in range(16) for row in range(4)
    }
    # Addresses behind the end begin again, up to the last one that there is.
    for number in range(0, COLUMNS, 97):
        assert place(order, number + COLUMNS) == place(order, number)
        highest = (1 << 60) - COLUMNS + number
        assert place(order, highest) == place(order, number)


@pytest.mark.parametrize("order", ["", "ro", "rorabgbacoco", "rorabgbacochch", "rorabgbacoxx"])
def test_refused(order: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mapping must hold each of .*, not '{order}'$"):
        AddressMapping(order, STRUCTURE)
