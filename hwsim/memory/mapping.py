"""Which channel, bank and row an address is in."""

from hwsim.memory.device import Structure
from vq.errors import ConfigError

__all__ = ["FIELDS", "AddressMapping"]

#: Parts of an address: row, rank, bank group, bank, column, channel.
FIELDS = ("ro", "ra", "bg", "ba", "co", "ch")


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
    bits : dict of str to tuple of int
        Lowest bit of each field in the number of a column, and the field's number of values less 1.

    Raises
    ------
    ConfigError
        If a field is missing or doubled.
    """

    def __init__(self, order: str, structure: Structure) -> None:
        names = [order[i : i + 2] for i in range(0, len(order), 2)]
        if sorted(names) != sorted(FIELDS):
            raise ConfigError(
                f"mapping must hold each of {', '.join(FIELDS)} once, the highest bits first, "
                f"not {order!r}"
            )
        self.order = order
        counts = {
            "ro": structure.rows,
            "ra": structure.ranks,
            "bg": structure.bank_groups,
            "ba": structure.banks_per_group,
            "co": structure.columns,
            "ch": structure.channels,
        }
        self.bits: dict[str, tuple[int, int]] = {}
        position = 0
        for name in reversed(names):
            self.bits[name] = (position, counts[name] - 1)
            position += self.bits[name][1].bit_length()
