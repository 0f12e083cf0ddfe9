"""Size of the compute half of an accelerator: array, accumulators and buffers."""

from dataclasses import dataclass

from rtl.settings import Problem, require, unmet

__all__ = ["ArrayConfig"]


@dataclass(frozen=True, kw_only=True)
class ArrayConfig:
    """Parameters of the array and of what surrounds it.

    Attributes
    ----------
    rows, columns : int
        Outputs and inputs of the array, each 8 to 64 and a power of two. ``rows`` is the
        ``tile_outputs`` of the files that the instance runs.
    lanes : int
        Weights that the decoder gives per cycle, at most ``rows * columns``.
    d_max : int
        Longest sub-vector, at most ``columns``; 1 if all weights are scalars.
    accumulators : int
        Positions whose sums are kept at once: output rows of a linear, pixels of a convolution.
        Kept twice, for totals of groups too.
    scale_lanes : int
        Outputs requantised, and sums of groups of inputs rescaled, per cycle: a power of two up to
        ``rows``.
    input_words, output_words : int
        Activation buffers, in words of ``columns`` and of ``rows`` bytes.

    Raises
    ------
    ConfigError
        If the parameters contradict each other or a limit. All problems are in one message.
    """

    rows: int = 16
    columns: int = 16
    lanes: int = 128
    d_max: int = 16
    accumulators: int = 1024
    scale_lanes: int = 8
    input_words: int = 2048
    output_words: int = 2048

    def __post_init__(self) -> None:
        require("array configuration", self.problems())

    def problems(self) -> list[Problem]:
        """All that is wrong with settings of the right types; nothing once it is built."""
        sizes = (8, 16, 32, 64)
        checks = [
            ("rows", self.rows in sizes, "8, 16, 32 or 64"),
            ("columns", self.columns in sizes, "8, 16, 32 or 64"),
            (
                "lanes",
                self.lanes in (64, 128, 256, 512)
                and self.rows <= self.lanes <= self.rows * self.columns,
                f"64, 128, 256 or 512 and at most rows * columns = {self.rows * self.columns}",
            ),
            (
                "d_max",
                # An impossible array must not make other settings look wrong as well.
                self.d_max in (1, 2, 4, 8, 16)
                and (self.columns not in sizes or self.d_max <= self.columns),
                f"1, 2, 4, 8 or 16 and at most columns = {self.columns}",
            ),
            ("accumulators", 2 <= self.accumulators <= 1 << 16, f"2 to {1 << 16}"),
            (
                "scale_lanes",
                self.scale_lanes in (1, 2, 4, *sizes)
                and (self.rows not in sizes or self.scale_lanes <= self.rows),
                f"a power of two up to rows = {self.rows}",
            ),
            *(
                (
                    name,
                    16 <= value <= 1 << 20 and value & (value - 1) == 0,
                    "a power of two from 16",
                )
                for name, value in (
                    ("input_words", self.input_words),
                    ("output_words", self.output_words),
                )
            ),
        ]
        return unmet(self, checks)
