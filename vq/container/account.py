"""Bits per weight: one formula for every method, nothing left out.

Every byte between the start of the data section and the last compressed layer belongs to exactly
one layer and one of four causes: stream, codebook, scale, padding. What several layers share
(a codebook, the rounding behind ``_scales``) is charged to the first layer that uses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vq.container.constants import GRANULE_BYTES
from vq.container.geometry import Geometry, round_up

__all__ = ["LayerAccount", "account"]


@dataclass(frozen=True)
class LayerAccount:
    """Bytes of one layer; the four causes are disjoint."""

    geometry: Geometry
    stream_bytes: int
    codebook_bytes: int
    scale_bytes: int
    padding_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.stream_bytes + self.codebook_bytes + self.scale_bytes + self.padding_bytes

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.total_bytes / self.geometry.weights


def account(layers: Sequence[Geometry]) -> list[LayerAccount]:
    """Account for every layer of a file, in execution order."""
    books: set[str] = set()
    scales = 4 * sum(g.scales for g in layers)
    shared_padding = round_up(scales, GRANULE_BYTES) - scales
    out = []
    for g in layers:
        padding = g.stream_bytes - g.payload_bytes
        codebook = 0
        if g.codebook and not g.in_rom and g.codebook not in books:
            books.add(g.codebook)
            codebook = g.k * g.d
            padding += _gap(codebook)
        scale = 4 * g.scales
        if g.group:
            scale += 2 * g.groups + g.zeros * g.groups
            padding += _gap(2 * g.groups) + g.zeros * _gap(g.groups)
        if g.scales:
            padding, shared_padding = padding + shared_padding, 0
        out.append(LayerAccount(g, g.payload_bytes, codebook, scale, padding))
    return out


def _gap(nbytes: int) -> int:
    return round_up(nbytes, GRANULE_BYTES) - nbytes
