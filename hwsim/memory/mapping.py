"""Which channel, bank and row an address is in."""

from functools import lru_cache

from hwsim.memory.device import Structure
from vq.errors import ConfigError

__all__ = ["FIELDS", "AddressMapping"]

#: Parts of an address: row, rank, bank group, bank, column, channel.
FIELDS = ("ro", "ra", "bg", "ba", "co", "ch")
_LOW_BITS = 6


class AddressMapping:
    """The bits of an address, from the highest field to the lowest, as ``rorabacobgch``.

    The lowest field is next to the byte in a column, so with ``bg`` or ``ch`` last, consecutive
    columns are in different bank groups or channels. Addresses behind the last row begin again.

    Parameters
    ----------
    order : str
        Each of ``FIELDS`` once.
    structure : Structure

    Attributes
    ----------
    order : str
    bank_mask, channel_shift, channel_mask, row_shift : int
        Where the parts are in what :meth:`high` and ``low`` give together.
    low : list of int
        By the lowest bits of a column's number: its part of the result.
    low_mask, low_bits : int
        How many bits those are.

    Raises
    ------
    ConfigError
        If a field is missing or doubled.
    """

    low_bits, low_mask = _LOW_BITS, (1 << _LOW_BITS) - 1

    def __init__(self, order: str, structure: Structure) -> None:
        names = [order[i : i + 2] for i in range(0, len(order), 2)]
        if sorted(names) != sorted(FIELDS):
            raise ConfigError(
                f"mapping must hold each of {', '.join(FIELDS)} once, the highest bits first, "
                f"not {order!r}"
            )
        self.order = order
        width = {
            name: (count - 1).bit_length()
            for name, count in (
                ("ro", structure.rows),
                ("ra", structure.ranks),
                ("bg", structure.bank_groups),
                ("ba", structure.banks_per_group),
                ("co", structure.columns),
                ("ch", structure.channels),
            )
        }
        self.channel_shift = width["ba"] + width["bg"] + width["ra"]
        self.bank_mask = (1 << self.channel_shift) - 1
        self.channel_mask = (1 << width["ch"]) - 1
        self.row_shift = self.channel_shift + width["ch"]
        target = {
            "ba": 0,
            "bg": width["ba"],
            "ra": width["ba"] + width["bg"],
            "ch": self.channel_shift,
            "ro": self.row_shift,
        }
        # (lowest bit in the number of a column, mask, lowest bit in the result) of each part
        self._parts: list[tuple[int, int, int]] = []
        position = 0
        for name in reversed(names):
            if name in target:
                self._parts.append((position, (1 << width[name]) - 1, target[name]))
            position += width[name]
        self.low = [self._place(number) for number in range(1 << _LOW_BITS)]
        self.high = lru_cache(maxsize=1 << 12)(self._high)

    def _place(self, number: int) -> int:
        return sum((number >> at & mask) << to for at, mask, to in self._parts)

    def _high(self, number: int) -> int:
        """The part of the result that all columns share whose numbers agree above ``low_bits``."""
        return self._place(number << _LOW_BITS)

    def place(self, number: int) -> tuple[int, int, int]:
        """Channel, bank (rank, group and bank in one number) and row of a column by its number."""
        packed = self._place(number)
        return (
            packed >> self.channel_shift & self.channel_mask,
            packed & self.bank_mask,
            packed >> self.row_shift,
        )
