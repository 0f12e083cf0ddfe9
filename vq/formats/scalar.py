"""Scalar formats: every weight is a whole number of a few bits, times the scale of its group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vq.container import TILE_OUTPUTS, Geometry
from vq.formats.format import Clusterer, Format, Original

if TYPE_CHECKING:
    from vq.formats.weights import Compressed

__all__ = ["PER_OUTPUT", "Int2", "Int3", "Int4", "Int8"]

#: A group that holds the weights of any output: one scale for each.
PER_OUTPUT = 1 << 16

_INT8_BYTES_PER_WEIGHT = 16


@dataclass(frozen=True)
class Int8(Format):
    """Eight-bit integers with one scale per output: 8 bits per weight."""

    name: ClassVar[str] = "int8"
    takes_codes: ClassVar[bool] = True

    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        return [] if self.tile_outputs > 0 else ["tile_outputs must be positive"]

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer."""
        return Geometry(
            layer, op, shape, self.name, tile_outputs=self.tile_outputs, scales=shape[0]
        )

    def memory_bytes(self, geometries: Sequence[Geometry]) -> int:
        """Estimate the peak of memory while weights are rounded."""
        return _INT8_BYTES_PER_WEIGHT * sum(g.weights for g in geometries)

    def compress(self, layers: Sequence[Original], clusterer: Clusterer) -> "list[Compressed]":
        """Scales that follow the greatest weight of each output, also while it is trained."""
        from vq.formats.scalar_weights import ScalarWeight

        return [ScalarWeight(layer.geometry, layer.weight, None) for layer in layers]


@dataclass(frozen=True)
class _Grouped(Format):
    """Settings of the grouped formats: few bits, and a scale for every group of weights.

    Every weight is rounded to the nearest level of its group (:mod:`vq.formats.grids`).

    Attributes
    ----------
    group : int
        Weights along the inputs that share an fp16 scale. The last group of an output may be
        shorter; where a layer has fewer inputs than this, an output is one group.
    zeros : bool
        Whether groups store a zero, a byte each, so that their levels need not lie evenly about 0.
        Off by default, as in most published 4-bit checkpoints; 3 and 2 bits are worth its bytes.
    tile_outputs : int
        Outputs in one block of the stream order.
    """

    takes_codes: ClassVar[bool] = True

    group: int = 128
    zeros: bool = False
    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = []
        if self.group < 1:
            found.append(f"group must be positive, not {self.group!r}")
        if self.tile_outputs < 1:
            found.append(f"tile_outputs must be positive, not {self.tile_outputs!r}")
        return found

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer."""
        return Geometry(
            layer,
            op,
            shape,
            self.name,
            tile_outputs=self.tile_outputs,
            scales=0,
            group=self.group,
            zeros=self.zeros,
        )

    def compress(self, layers: Sequence[Original], clusterer: Clusterer) -> "list[Compressed]":
        """Round to the nearest levels of grids that span their groups."""
        from vq.formats.scalar_weights import rounded

        return [rounded(layer.geometry, layer.weight) for layer in layers]


@dataclass(frozen=True)
class Int4(_Grouped):
    """Four-bit integers with a scale per group: ``4 + 16 / group`` bits per weight.

    >>> Int4(group=32).geometry("fc", "linear", (64, 128)).groups
    256
    """

    name: ClassVar[str] = "int4"


@dataclass(frozen=True)
class Int3(_Grouped):
    """Three-bit integers with a scale per group: ``3 + 16 / group`` bits per weight."""

    name: ClassVar[str] = "int3"


@dataclass(frozen=True)
class Int2(_Grouped):
    """Two-bit integers with a scale per group: ``2 + 16 / group`` bits per weight."""

    name: ClassVar[str] = "int2"
