"""What one generated accelerator can do: bus, decoder, array and buffers in one checked record."""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rtl.compute.config import ArrayConfig
from rtl.config import StreamerConfig, type_problems, value_of
from vq.container import ConfigError, bulleted

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

    def __post_init__(self) -> None:
        problems = type_problems(self) or self._problems()
        if problems:
            raise ConfigError(bulleted("accelerator configuration", problems))

    def _problems(self) -> list[str]:
        """What the parts say about this configuration's own names, and what only it knows."""
        own = {field.name for field in dataclasses.fields(self)}
        found: dict[str, None] = {}
        for build in (lambda: self.streamer, lambda: self.array):
            try:
                build()
            except ConfigError as error:
                # Lines behind the first one are the problems, each behind a bullet.
                lines = [line.strip(" -") for line in str(error).splitlines()[1:]]
                found |= dict.fromkeys(line for line in lines if line.split()[0] in own)
        named = {line.split()[0] for line in found}
        if not named & {"bus_bits", "rows", "columns"} and self.bus_bits > self.rows * self.columns:
            problem = f"at most rows * columns = {self.rows * self.columns}, not {self.bus_bits}"
            found[f"bus_bits must be {problem}"] = None
        for name, word in (("input_bytes", self.columns), ("output_bytes", self.rows)):
            value = getattr(self, name)
            if value & (value - 1) or value < 16 * word:
                found[f"{name} must be a power of two from {16 * word}, not {value}"] = None
        for name in ("rows", "columns"):
            if name in named:  # sizes of a buffer in impossible words say nothing
                other = {"rows": "output_bytes", "columns": "input_bytes"}[name]
                found = {p: None for p in found if not p.startswith(other)}
        return list(found)

    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat."""
        return self.bus_bits // 8

    @property
    def streamer(self) -> StreamerConfig:
        """The part that fetches and decodes weights."""
        shared = {field.name for field in dataclasses.fields(StreamerConfig)}
        chosen = {n: v for n, v in dataclasses.asdict(self).items() if n in shared}
        return StreamerConfig(**chosen, tile_outputs=self.rows)

    @property
    def array(self) -> ArrayConfig:
        """The part that computes."""
        return ArrayConfig(
            rows=self.rows,
            columns=self.columns,
            lanes=self.bus_bits,
            d_max=1 if self.int8_only else self.d_max,
            accumulators=self.accumulators,
            scale_lanes=self.scale_lanes,
            input_words=self.input_bytes // max(1, self.columns),
            output_words=self.output_bytes // max(1, self.rows),
        )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build from names and values, as a file or a command line gives them.

        Integers may be given as their decimal text; ``array`` may stand for rows and columns,
        as ``16x16``.

        Raises
        ------
        ConfigError
            If a name is unknown (with the nearest known one), a value is not an integer,
            or the configuration is impossible.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        problems: list[str] = []
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name == "array":
                size = re.fullmatch(r"(\d{1,4})x(\d{1,4})", str(value))
                if size is None:
                    problems.append(f"array must be ROWSxCOLUMNS, not {value!r}")
                else:
                    values |= {"rows": int(size[1]), "columns": int(size[2])}
                continue
            if name not in known:
                near = difflib.get_close_matches(name, [*known, "array"], n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                names = ", ".join([*known, "array"])
                problems.append(f"key must be one of {names}, not {name!r}{hint}")
                continue
            try:
                values[name] = value_of(cls, name, value)
            except ValueError:
                problems.append(f"{name} must be an integer, not {value!r}")
        if problems:
            raise ConfigError(bulleted("accelerator configuration", problems))
        return cls(**values)

    def to_mapping(self) -> dict[str, int | str]:
        """All parameters by name."""
        return dataclasses.asdict(self)
