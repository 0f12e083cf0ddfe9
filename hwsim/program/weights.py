"""A container as the accelerator sees it: the file's own bytes, and one descriptor per layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtl import DESCRIPTOR, CodebookMode, Method, StreamerConfig
from vq.container import (
    GRANULE_BYTES,
    ConfigError,
    Geometry,
    LayerEntry,
    Span,
    bulleted,
)

__all__ = ["ImageLayer", "WeightFile", "check_layers", "layers_of", "pack_descriptor"]

_METHODS = {"ssvq": Method.SSVQ, "vq": Method.VQ, "int8": Method.INT8} | dict.fromkeys(
    ("int4", "int3", "int2"), Method.CODES
)


class WeightFile(Protocol):
    """What a program has to know of a file: a container, or one that is only planned."""

    @property
    def layers(self) -> Sequence[LayerEntry]:
        """Layers in execution order, with the places of their bytes."""

    @property
    def file_bytes(self) -> int:
        """Size of the file."""

    def tensor_spans(self) -> Mapping[str, Span]:
        """Places of all tensors by name."""

    def image(self) -> NDArray[np.uint8] | None:
        """All bytes of the file; None if there are none yet."""


@dataclass(frozen=True)
class ImageLayer:
    """One layer of an image.

    Attributes
    ----------
    entry : LayerEntry
        The layer in the container.
    descriptor : int
        What the host gives the streamer.
    codebook_bytes : int
        Payload of the codebook that this layer loads; 0 if it has none, keeps the last one, or
        uses the one in ROM.
    zero_bytes : int
        Payload of the group zeros that the layer reads.
    read_bytes : int
        Bytes that the streamer reads for the layer, padding included.
    """

    entry: LayerEntry
    descriptor: int
    codebook_bytes: int
    zero_bytes: int
    read_bytes: int

    def output_weights(self, lanes: int) -> int:
        """Weights that leave the streamer in whole beats of ``lanes``, the filling included."""
        return -(-self.entry.geometry.decoded_weights // lanes) * lanes

    @property
    def padding_bytes(self) -> int:
        """Bytes read that carry nothing."""
        payload = self.codebook_bytes + self.zero_bytes + self.entry.geometry.payload_bytes
        return self.read_bytes - payload


def layers_of(
    container: WeightFile,
    config: StreamerConfig,
    entries: Sequence[LayerEntry] | None = None,
    *,
    base: int = 0,
    held: Span | None = None,
) -> list[ImageLayer]:
    """Describe layers of a container in the order of ``entries``; all of them if left out.

    Addresses are file offsets from ``base`` on: the memory image is the file itself. A layer whose
    codebook is that of the last layer that had one (``held``, before there was any) keeps it, any
    other codebook is loaded; one in ROM is always there.

    Raises
    ------
    ConfigError
        If the instance cannot run a layer. All such layers are named, each with the limit.
    """
    entries = container.layers if entries is None else entries
    check_layers(list(dict.fromkeys(entries)), config)
    layers = []
    for entry in entries:
        g, span = entry.geometry, entry.codebook
        fields: dict[str, Any] = {
            "method": _METHODS[g.method],
            "codebook_mode": CodebookMode.NONE,
            "stream_granules": entry.stream.nbytes // GRANULE_BYTES,
            "stream_address": base + entry.stream.offset,
        }
        read_granules = 0  # beside the stream
        if g.group:
            fields |= {"index_bits": g.b, "chunks": g.chunks}
        if g.zeros:
            zeros = container.tensor_spans()[f"{g.name}.group_zeros"]
            read_granules = -(-zeros.nbytes // GRANULE_BYTES)
            inputs_per_beat = config.bus_bits // config.tile_outputs
            fields |= {
                "codebook_mode": CodebookMode.ZEROS,
                "codebook_address": base + zeros.offset,
                "codebook_granules": read_granules,
                "group_beats": -(-min(g.group, g.I) // inputs_per_beat),
                "block_beats": g.I // inputs_per_beat,
            }
        if g.k:
            there = g.in_rom or span == held
            fields |= {
                "codebook_mode": CodebookMode.KEEP if there else CodebookMode.LOAD,
                "log2_d": g.d.bit_length() - 1,
                "index_bits": g.b,
                "chunks": g.chunks,
                "last_granules": g.last_granules,
            }
            if g.sign_bits == g.d - 1 and g.sign_bits:
                fields |= {
                    "method": Method.SSVQ_PARITY,
                    "last_sign_granules": g.last_sign_part_bytes // GRANULE_BYTES,
                }
            if span is not None and not there:
                read_granules = -(-span.nbytes // GRANULE_BYTES)
                fields |= {
                    "codebook_address": base + span.offset,
                    "codebook_granules": read_granules,
                }
                held = span
        layers.append(
            ImageLayer(
                entry,
                pack_descriptor(fields),
                g.k * g.d if read_granules else 0,
                g.groups if g.zeros else 0,
                read_granules * GRANULE_BYTES + entry.stream.nbytes,
            )
        )
    return layers


def pack_descriptor(fields: dict[str, Any]) -> int:
    """Bits of a layer descriptor; fields that are left out are zero."""
    return int(DESCRIPTOR.const(fields).as_value().value)


def check_layers(entries: Sequence[LayerEntry], config: StreamerConfig) -> None:
    """Require that an instance can run every layer; see :func:`layers_of` for the error."""
    problems = [
        f"layer {entry.geometry.name!r}: {problem}"
        for entry in entries
        for problem in _limits(entry, config)
    ]
    if problems:
        raise ConfigError(bulleted("accelerator", problems))


def _limits(entry: LayerEntry, config: StreamerConfig) -> list[str]:
    g = entry.geometry
    problems = []
    if config.int8_only and g.is_packed:
        return [f"method must be int8 (int8_only = 1), not {g.method}"]
    if entry.stream.offset + entry.stream.nbytes > 1 << config.address_bits:
        problems.append(
            f"stream must end below {1 << config.address_bits:#x} (address_bits = "
            f"{config.address_bits}), not at {entry.stream.offset + entry.stream.nbytes:#x}"
        )
    if max(g.chunks, entry.stream.nbytes // GRANULE_BYTES) >= 1 << 32:
        problems.append(f"stream must be shorter than 2**32 granules, not {g.stream_bytes} bytes")
    if g.zeros:
        problems += _limits_of_zeros(g, config)
    if not g.k:
        return problems
    problems += _limits_of_rom(g, config)
    if g.d not in (2, 4, 8, 16) or not config.d_min <= g.d <= config.d_max:
        problems.append(
            f"d must be a power of two from {config.d_min} to {config.d_max}, not {g.d}"
        )
    if g.b > config.index_bits_max:
        problems.append(f"k must be at most {1 << config.index_bits_max}, not {g.k}")
    return problems


def _limits_of_rom(g: Geometry, config: StreamerConfig) -> list[str]:
    """An instance has RAM for the codebooks of files, or one codebook in ROM."""
    if config.codebook is None:
        return ["codebook must be in the file, not in ROM"] if g.in_rom else []
    (name,) = config.roms
    if g.codebook != name:
        return [f"codebook must be {name} (codebook_rom), not {g.codebook}"]
    k, d = config.codebook.shape
    if (g.k, g.d) != (k, d):  # the same bytes, cut in another way
        return [f"codebook must be [{k}, {d}] (codebook_rom), not [{g.k}, {g.d}]"]
    return []


def _limits_of_zeros(g: Geometry, config: StreamerConfig) -> list[str]:
    """Every output beat must lie in one group, and lane l belong to output l mod tile_outputs."""
    tile, inputs_per_beat = config.tile_outputs, config.bus_bits // config.tile_outputs
    granules = -(-g.groups // GRANULE_BYTES)
    checks = [
        (g.tile == tile, f"tile_outputs must be {tile}, as that of the accelerator, not {g.tile}"),
        (g.O % tile == 0, f"outputs must be a multiple of {tile} (tile_outputs), not {g.O}"),
        (
            g.I % inputs_per_beat == 0,
            f"inputs must be a multiple of {inputs_per_beat} (bus_bits / tile_outputs), not {g.I}",
        ),
        (
            g.group >= g.I or g.group % inputs_per_beat == 0,
            f"group must be a multiple of {inputs_per_beat} (bus_bits / tile_outputs), "
            f"not {g.group}",
        ),
        (granules < 1 << 16, f"zeros must be at most {64 * 0xFFFF} bytes, not {g.groups}"),
    ]
    return [f"with group zeros, {problem}" for holds, problem in checks if not holds]
