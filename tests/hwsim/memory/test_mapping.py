"""Addresses to channels, banks and rows."""

from collections import Counter
from itertools import permutations

import pytest

from hwsim.memory.device import Structure
from hwsim.memory.mapping import FIELDS, AddressMapping
from vq.errors import ConfigError

STRUCTURE = Structure(
    channels=2, ranks=2, bank_groups=2, banks_per_group=4, rows=4, row_bytes=128, column_bytes=16
)
COLUMNS = 2 * 2 * 2 * 4 * 4 * 8


def test_by_hand() -> None:
    """Column number, from the highest bit: row 2 bits, rank, group, bank 2, column 3, channel."""
    mapping = AddressMapping("rorabgbacoch", STRUCTURE)
    number = 0b10_1_0_11_101_1
    assert mapping.place(number) == (1, 0b1_0_11, 0b10)
    # Bank numbers are rank, group, bank, wherever their bits are.
    mapping = AddressMapping("chbabgrocora", STRUCTURE)
    number = 0b1_11_0_10_101_1
    assert mapping.place(number) == (1, 0b1_0_11, 0b10)


@pytest.mark.parametrize("order", ["".join(p) for p in permutations(FIELDS)][::37])
def test_every_place_is_used_once(order: str) -> None:
    mapping = AddressMapping(order, STRUCTURE)
    places = Counter(mapping.place(number) for number in range(COLUMNS))
    assert set(places.values()) == {8} and len(places) == COLUMNS // 8
    assert places.keys() == {
        (channel, bank, row) for channel in range(2) for bank in range(16) for row in range(4)
    }
    # What is looked up in two halves is the same; addresses behind the end begin again.
    for number in range(0, COLUMNS, 5):
        packed = mapping.high(number >> mapping.low_bits) | mapping.low[number & mapping.low_mask]
        channel, bank, row = mapping.place(number)
        assert packed == row << mapping.row_shift | channel << mapping.channel_shift | bank
        assert mapping.place(number + COLUMNS) == (channel, bank, row)


@pytest.mark.parametrize("order", ["", "ro", "rorabgbacoco", "rorabgbacochch", "rorabgbacoxx"])
def test_refused(order: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mapping must hold each of .*, not '{order}'$"):
        AddressMapping(order, STRUCTURE)
