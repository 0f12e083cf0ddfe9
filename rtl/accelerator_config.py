"""What one generated accelerator can do: bus, decoder, array and buffers in one checked record."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rtl.compute.config import ArrayConfig
from rtl.config import StreamerConfig
from rtl.settings import (
    Problem,
    followed,
    read_settings,
    require,
    sides_of,
    type_problems,
    unchecked,
    unmet,
)
from rtl.vector.config import VectorConfig

__all__ = ["AcceleratorConfig"]


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Parameters of an accelerator.

    Attributes
    ----------
    bus_bits : int
        Width W of the AXI data bus and number of weights decoded per cycle: 64, 128, 256, 512.
    rows, columns : int
        Outputs and inputs of the multiplier array, each 8, 16, 32 or 64; together at least W.
        ``rows`` is the ``tile_outputs`` of the files that the instance runs.
    d_min, d_max : int
        Shortest and longest sub-vector, see :class:`~rtl.StreamerConfig`; ``d_max`` at most
        ``columns``.
    index_bits_max : int
        Widest index b, 5 to 10: capacity of the codebook RAM.
    accumulators : int
        Positions (rows of activations, pixels) whose sums are kept at once, 2 to 65536.
    scale_lanes : int
        Outputs requantised per cycle, a power of two up to ``rows``.
    input_bytes, output_bytes : int
        Activation buffers, powers of two. Half of each belongs to one layer.
    address_bits, burst_bytes, outstanding_bursts, fifo_bytes, layers_in_flight : int
        See :class:`~rtl.StreamerConfig`.
    int8_only : int
        1 leaves all methods but int8 out, see :class:`~rtl.StreamerConfig`.
    codebook_rom : str
        Text of the one codebook of an instance that holds it in ROM, see
        :class:`~rtl.StreamerConfig`.
    vector_unit : int
        1 for a unit beside the array that does what transformers need: a word of either buffer is
        then a beat, ``bus_bits`` being eight times ``rows`` and ``columns``. 0 leaves it out.
    row_max : int
        Longest row of the vector unit, see :class:`~rtl.vector.config.VectorConfig`.

    Raises
    ------
    ConfigError
        If the parameters contradict each other or a limit. All problems are in one message.
    """

    bus_bits: int = 128
    rows: int = 16
    columns: int = 16
    d_min: int = 4
    d_max: int = 16
    index_bits_max: int = 8
    accumulators: int = 1024
    scale_lanes: int = 8
    input_bytes: int = 1 << 16
    output_bytes: int = 1 << 16
    address_bits: int = 40
    burst_bytes: int = 1024
    outstanding_bursts: int = 8
    fifo_bytes: int = 4096
    layers_in_flight: int = 4
    int8_only: int = 0
    codebook_rom: str = ""
    vector_unit: int = 0
    row_max: int = 4096

    def __post_init__(self) -> None:
        require("accelerator configuration", type_problems(self) or self.problems())

    def problems(self) -> list[Problem]:
        """All that is wrong with settings of the right types; nothing once it is built.

        What the parts say about this configuration's own settings, and what only it knows.
        """
        own = {field.name for field in dataclasses.fields(self)}
        found: dict[Problem, None] = {}  # the parts share settings
        parts = [(StreamerConfig, self._of_streamer()), (ArrayConfig, self._of_array())]
        if self.vector_unit == 1:
            parts.append((VectorConfig, self._of_vector()))
        for kind, settings in parts:
            problems = unchecked(kind, settings).problems()
            found |= dict.fromkeys(problem for problem in problems if problem[0] in own)
        wrong = {name for name, _ in found}
        weights = self.rows * self.columns
        checks = []
        if not wrong & {"bus_bits", "rows", "columns"}:
            fits = self.bus_bits <= weights
            checks.append(("bus_bits", fits, f"at most rows * columns = {weights}"))
        for name, side in (("input_bytes", "columns"), ("output_bytes", "rows")):
            if side not in wrong:  # sizes of a buffer in impossible words say nothing
                value, least = getattr(self, name), 16 * getattr(self, side)
                fits = value & (value - 1) == 0 and value >= least
                checks.append((name, fits, f"a power of two from 16 * {side} = {least}"))
        sides_fit = self.rows == self.columns == self.bus_bits // 8
        sides = self.vector_unit == 0 or bool(wrong & {"bus_bits", "rows", "columns"}) or sides_fit
        fits = self.vector_unit in (0, 1)
        checks.append(("vector_unit", fits, "0 or 1"))
        if fits:
            words = f"eight times rows and columns beside vector_unit = 1, {8 * self.rows}"
            checks.append(("bus_bits", sides, words))
        return [*found, *unmet(self, checks)]

    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat."""
        return self.bus_bits // 8

    @property
    def streamer(self) -> StreamerConfig:
        """The part that fetches and decodes weights."""
        return StreamerConfig(**self._of_streamer())

    @property
    def array(self) -> ArrayConfig:
        """The part that computes."""
        return ArrayConfig(**self._of_array())

    @property
    def vector(self) -> VectorConfig:
        """The vector unit of an instance that has one."""
        return VectorConfig(**self._of_vector())

    def _of_vector(self) -> dict[str, int]:
        return {"lanes": self.bus_bits // 16, "row_max": self.row_max}

    def _of_streamer(self) -> dict[str, Any]:
        shared = {field.name for field in dataclasses.fields(StreamerConfig)}
        chosen = {n: v for n, v in dataclasses.asdict(self).items() if n in shared}
        return {**chosen, "tile_outputs": self.rows}

    def _of_array(self) -> dict[str, int]:
        return {
            "rows": self.rows,
            "columns": self.columns,
            "lanes": self.bus_bits,
            "d_max": 1 if self.int8_only else self.d_max,
            "accumulators": self.accumulators,
            "scale_lanes": self.scale_lanes,
            "input_words": self.input_bytes // max(1, self.columns),
            "output_words": self.output_bytes // max(1, self.rows),
        }

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build from names and values, as a file or a command line gives them.

        Integers may be given as their decimal text; ``array`` may stand for rows and columns,
        as ``16x16``. What is left out follows from what is given: see
        :func:`rtl.settings.followed`.

        Raises
        ------
        ConfigError
            If a name is unknown (with the nearest known one), a value is not an integer,
            or the configuration is impossible.
        """
        problems: list[Problem] = []
        values = dict(settings)
        if "array" in values:
            array = values.pop("array")
            sides = sides_of(array)
            if not sides:
                problems.append(("array", f"array must be ROWSxCOLUMNS, not {array!r}"))
            problems += [
                (name, f"{name} must be left out beside array={array}, not be {values[name]!r}")
                for name in sides
                if name in values
            ]
            values |= sides
        return cls(**followed(cls, read_settings(cls, values, also=["array"], problems=problems)))

    def to_mapping(self) -> dict[str, int | str]:
        """All parameters by name."""
        return dataclasses.asdict(self)
