"""What one generated instance can do: every limit of the hardware in one checked record."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rtl.rom import parse_rom
from rtl.settings import Problem, followed, read_settings, require, type_problems, unmet
from vq.container import CHUNK_SUBVECTORS, GRANULE_BYTES, PAGE_BYTES
from vq.container.rom import rom_name

__all__ = ["AXI_BURST_BEATS_MAX", "StreamerConfig"]

#: Longest burst of AXI4, in beats.
AXI_BURST_BEATS_MAX = 256


@dataclass(frozen=True, kw_only=True)
class StreamerConfig:
    """Parameters of a weight streamer.

    Attributes
    ----------
    bus_bits : int
        Width W of the AXI data bus and number of weights that leave per cycle: 64, 128, 256, 512.
    d_min : int
        Shortest sub-vector, 2 or 4. With 2, the codebook needs twice as many banks.
    d_max : int
        Longest sub-vector: 2, 4, 8 or 16, at least ``d_min``.
    index_bits_max : int
        Widest index b, 5 to 10. A codebook holds up to ``2**index_bits_max`` codewords.
    address_bits : int
        Width of a byte address, 16 to 64.
    burst_bytes : int
        Longest burst, a power of two of 64 to 4096 bytes and at most 256 beats. Bursts are aligned
        to it, so none crosses a 4 KiB boundary.
    outstanding_bursts : int
        Bursts that may be under way at once, 2 to 64.
    fifo_bytes : int
        Read buffer of codebooks and, as large again, of streams: a power of two from
        twice ``burst_bytes`` to 64 KiB. A burst is requested when its buffer has room for all
        of it, so this bounds the bytes in flight; it should be above bandwidth times latency.
    layers_in_flight : int
        Layers between the acceptance of the descriptor and that of the report, 2 to 16.
    tile_outputs : int
        Outputs in a block of the layers whose groups have zeros of their own: 8, 16, 32 or 64. No
        other layer depends on it.
    int8_only : int
        1 leaves codebooks, bit-planes, signs and codes out: the instance runs int8 alone.
    codebook_rom : str
        Text of a [k, d] int8 codebook, see :func:`~rtl.rom_text`: the instance holds it in ROM
        and can load no other. k is a power of two from 2 to ``2**index_bits_max``, d one from
        ``d_min`` to ``d_max``. Empty for a RAM into which every layer may load its own.

    Raises
    ------
    ConfigError
        If the parameters contradict each other or a limit. All problems are in one message.
    """

    bus_bits: int = 128
    d_min: int = 4
    d_max: int = 16
    index_bits_max: int = 8
    address_bits: int = 40
    burst_bytes: int = 1024
    outstanding_bursts: int = 8
    fifo_bytes: int = 4096
    layers_in_flight: int = 8
    tile_outputs: int = 16
    int8_only: int = 0
    codebook_rom: str = ""

    def __post_init__(self) -> None:
        require("accelerator configuration", type_problems(self) or self.problems())

    def problems(self) -> list[Problem]:
        """All that is wrong with settings of the right types; nothing once it is built."""
        bus_fits = self.bus_bits in (64, 128, 256, 512)
        # An impossible bus must not make the burst look wrong as well.
        bus_bits = self.bus_bits if bus_fits else 512
        widest_burst = min(PAGE_BYTES, AXI_BURST_BEATS_MAX * bus_bits // 8)
        checks = [
            ("bus_bits", bus_fits, "64, 128, 256 or 512"),
            ("d_min", self.d_min in (2, 4), "2 or 4"),
            (
                "d_max",
                self.d_max in (2, 4, 8, 16) and self.d_max >= self.d_min,
                f"2, 4, 8 or 16 and at least d_min = {self.d_min}",
            ),
            ("index_bits_max", 5 <= self.index_bits_max <= 10, "5 to 10"),
            ("address_bits", 16 <= self.address_bits <= 64, "16 to 64"),
            (
                "burst_bytes",
                _is_power(self.burst_bytes) and GRANULE_BYTES <= self.burst_bytes <= widest_burst,
                f"a power of two from {GRANULE_BYTES} to {widest_burst} (a page, and "
                f"{AXI_BURST_BEATS_MAX} beats of bus_bits = {bus_bits})",
            ),
            ("outstanding_bursts", 2 <= self.outstanding_bursts <= 64, "2 to 64"),
            (
                "fifo_bytes",
                _is_power(self.fifo_bytes) and 2 * self.burst_bytes <= self.fifo_bytes <= 1 << 16,
                f"a power of two from {2 * self.burst_bytes} (twice burst_bytes) to {1 << 16}",
            ),
            ("layers_in_flight", 2 <= self.layers_in_flight <= 16, "2 to 16"),
            ("tile_outputs", self.tile_outputs in (8, 16, 32, 64), "8, 16, 32 or 64"),
            ("int8_only", self.int8_only in (0, 1), "0 or 1"),
        ]
        problems = unmet(self, checks)
        rom = self._rom_problems({name for name, _ in problems})
        return problems + [("codebook_rom", f"codebook_rom must {problem}") for problem in rom]

    def _rom_problems(self, wrong: set[str]) -> list[str]:
        """What the codebook in ROM must be, but for limits that are ``wrong`` themselves."""
        if not self.codebook_rom:
            return []
        if self.codebook is None:
            text = self.codebook_rom[:16] + "..." * (len(self.codebook_rom) > 16)
            return [f"be KxD: and k * d bytes in hexadecimal, not {text!r}"]
        k, d = self.codebook.shape
        problems = []
        if "index_bits_max" not in wrong and not (
            2 <= k <= 1 << self.index_bits_max and _is_power(k)
        ):
            limit = f"2 to {1 << self.index_bits_max} (2**index_bits_max)"
            problems.append(f"have a power of two from {limit} as k, not {k}")
        if not wrong & {"d_min", "d_max"} and not (self.d_min <= d <= self.d_max and _is_power(d)):
            limit = f"{self.d_min} to {self.d_max} (d_min to d_max)"
            problems.append(f"have a power of two from {limit} as d, not {d}")
        if self.int8_only == 1:
            problems.append("be empty beside int8_only = 1, not a codebook")
        return problems

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build from names and values, as a file or a command line gives them.

        Integers may be given as their decimal text. What is left out follows from what is given:
        see :func:`rtl.settings.followed`.

        Raises
        ------
        ConfigError
            If a name is unknown (with the nearest known one), a value is not an integer,
            or the configuration is impossible.
        """
        return cls(**followed(cls, read_settings(cls, settings)))

    def to_mapping(self) -> dict[str, int | str]:
        """All parameters by name."""
        return dataclasses.asdict(self)

    @cached_property
    def codebook(self) -> NDArray[np.int8] | None:
        """The codebook in ROM, [k, d] int8, or None."""
        return parse_rom(self.codebook_rom)

    @property
    def roms(self) -> dict[str, NDArray[np.int8]]:
        """The codebook in ROM by its name, as :func:`vq.container.open_container` takes it."""
        return {} if self.codebook is None else {rom_name(self.codebook): self.codebook}

    @property
    def bus_bytes(self) -> int:
        """Bytes of one beat."""
        return self.bus_bits // 8

    @property
    def granule_beats(self) -> int:
        """Beats of one 64-byte granule, which is also the beats of one bit-plane."""
        return 8 * GRANULE_BYTES // self.bus_bits

    @property
    def banks(self) -> int:
        """Codebook banks, each ``d_min`` bytes wide; together they give W weights per cycle."""
        return self.bus_bits // self.d_min

    @property
    def fifo_beats(self) -> int:
        """Read buffer, in beats."""
        return self.fifo_bytes // self.bus_bytes

    @property
    def direct_fifo_beats(self) -> int:
        """Elastic buffer of sign beats. ``(512/W) d b / (b+d)`` beats even out the output bursts
        (32 at W = 128, d = 16, b = 10 with some spare)."""
        return max(8, 8 * CHUNK_SUBVECTORS // self.bus_bits)


def _is_power(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
