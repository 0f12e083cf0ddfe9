"""Size of the vector unit: lanes and the longest row."""

from dataclasses import dataclass

from rtl.settings import Problem, require, unmet

__all__ = ["ROW_LIMIT", "VectorConfig"]

#: Longest row of any instance: of a norm, eight times the number of channels times a reciprocal of
#: 15 bits must be a multiplicand of 32 bits.
ROW_LIMIT = 8192


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """Parameters of the vector unit.

    Attributes
    ----------
    lanes : int
        Values per cycle, each 16 bits; half the bytes of a word of memory.
    row_max : int
        Longest row. Two of them fit the row buffer, one the memory of channels' numbers.

    Raises
    ------
    ConfigError
        If the parameters contradict each other or a limit. All problems are in one message.
    """

    lanes: int = 8
    row_max: int = 4096

    def __post_init__(self) -> None:
        require("vector unit configuration", self.problems())

    def problems(self) -> list[Problem]:
        """All that is wrong with settings of the right types; nothing once it is built."""
        least = 16 * self.lanes
        power = self.row_max > 0 and self.row_max & (self.row_max - 1) == 0
        checks = [
            ("lanes", self.lanes in (4, 8, 16, 32), "4, 8, 16 or 32"),
            (
                "row_max",
                power and least <= self.row_max <= ROW_LIMIT,
                f"a power of two from 16 * lanes = {least} to {ROW_LIMIT}",
            ),
        ]
        return unmet(self, checks)

    @property
    def log2_lanes(self) -> int:
        """Bits of the number of a lane."""
        return self.lanes.bit_length() - 1

    @property
    def row_beats(self) -> int:
        """Beats of the longest row."""
        return self.row_max // self.lanes

    @property
    def buffer_beats(self) -> int:
        """Beats that the row buffer holds."""
        return 2 * self.row_beats

    @property
    def total_bits(self) -> int:
        """Of a sum of a row of int16, signed: magnitudes are at most ``2**15 * row_max``."""
        return 16 + self.row_max.bit_length()

    @property
    def squares_bits(self) -> int:
        """Of a sum of squares of a row of int16: at most ``2**30 * row_max``."""
        return 30 + self.row_max.bit_length()
