"""The compression methods and their settings: one small class each.

A method knows what it would make of a layer (:meth:`geometry`) and why it cannot
(:meth:`misfit`), from the layer's shape alone.
"""

from dataclasses import dataclass
from typing import ClassVar

from vq.container import AXES, INDEX_BITS_MAX, SUBVECTOR_MAX, TILE_OUTPUTS, Geometry

__all__ = ["SSVQ", "VQ", "Int2", "Int3", "Int4", "Int8", "Method"]


@dataclass(frozen=True)
class _Codebook:
    """Settings that both codebook methods share.

    Attributes
    ----------
    d : int
        Weights per sub-vector.
    k : int
        Codewords in the codebook.
    axis : "auto", "in", "out" or "kernel"
        Direction of a sub-vector: consecutive inputs of one output (channels innermost),
        consecutive outputs at one input, or inputs with the taps of a kernel innermost. "auto"
        is "in", but "out" for convolutions with fewer input channels per group than ``d``
        (depthwise ones), where sub-vectors along the input would straddle unrelated taps.
    scale : "layer", "output" or "norm"
        One fp32 scale for the layer, one for every output, or none: the norm that follows takes
        it over (:mod:`vq.recipe.folding`), and a batch norm does so for every output.
    tile_outputs : int
        Outputs in one block of the stream order.
    shared : str or None
        Layers that give the same name share one codebook, each with its own scale.
    """

    name: ClassVar[str]

    d: int
    k: int
    axis: str = "auto"
    scale: str = "layer"
    tile_outputs: int = TILE_OUTPUTS
    shared: str | None = None

    @property
    def sign_bits(self) -> int:
        """Stored signs per sub-vector."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = []
        if not 1 <= self.d <= SUBVECTOR_MAX:
            found.append(f"d must be 1 to {SUBVECTOR_MAX}, not {self.d!r}")
        if not 2 <= self.k <= 1 << INDEX_BITS_MAX:
            found.append(f"k must be 2 to {1 << INDEX_BITS_MAX}, not {self.k!r}")
        if self.axis not in ("auto", *AXES):
            found.append(f"axis must be auto, {', '.join(AXES)}, not {self.axis!r}")
        if self.scale not in ("layer", "output", "norm"):
            found.append(f"scale must be 'layer', 'output' or 'norm', not {self.scale!r}")
        if self.tile_outputs < 1:
            found.append(f"tile_outputs must be positive, not {self.tile_outputs!r}")
        elif self.axis == "out" and not found and self.tile_outputs % self.d:
            found.append(f"tile_outputs must be a multiple of d, not {self.tile_outputs!r}")
        if self.shared == "":
            found.append("shared must be a name, not ''")
        return found

    def axis_for(self, op: str, shape: tuple[int, ...]) -> str:
        """Direction of the sub-vectors in a layer."""
        if self.axis != "auto":
            return self.axis
        return "out" if op.startswith("conv") and shape[1] < self.d else "in"

    def misfit(self, op: str, shape: tuple[int, ...]) -> list[str]:
        """Everything that keeps these settings from a layer."""
        found = []
        if self.axis_for(op, shape) == "out" and self.tile_outputs % self.d:
            found.append(
                f"tile_outputs must be a multiple of d = {self.d}, not {self.tile_outputs}"
            )
        elif self.shared is None:
            count = self.geometry("layer", op, shape).N
            if self.k > count:
                found.append(f"k must be at most its {count} sub-vectors, not {self.k}")
        return found

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer."""
        return Geometry(
            layer,
            op,
            shape,
            self.name,
            self.axis_for(op, shape),
            self.tile_outputs,
            self.d,
            self.k,
            self.sign_bits,
            {"layer": 1, "output": shape[0], "norm": 0}[self.scale],
            f"{layer}.codebook" if self.shared is None else f"codebook:{self.shared}",
        )


@dataclass(frozen=True)
class SSVQ(_Codebook):
    """Sign-splitting vector quantisation: a codebook of magnitudes and a sign per weight.

    Costs ``1 + log2(k) / d`` bits per weight and the codebook. With ``parity``, one sign in ``d``
    is not stored: the number of negative weights in a sub-vector is forced even by turning its
    least certain sign, which saves ``1 / d`` bit per weight.

    >>> SSVQ(d=8, k=16).geometry("fc", "linear", (64, 128)).stream_bytes
    1536
    """

    name: ClassVar[str] = "ssvq"

    d: int = 8
    k: int = 16
    parity: bool = False

    @property
    def sign_bits(self) -> int:
        """Stored signs per sub-vector, ``d`` or ``d - 1``."""
        return self.d - self.parity

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        found = super().problems()
        if self.parity and self.d < 2:
            found.append(f"d must be at least 2 with parity signs, not {self.d}")
        return found


@dataclass(frozen=True)
class VQ(_Codebook):
    """Plain vector quantisation with a signed codebook: ``log2(k) / d`` bits per weight."""

    name: ClassVar[str] = "vq"

    d: int = 4
    k: int = 64

    @property
    def sign_bits(self) -> int:
        """Plain codewords carry their own signs."""
        return 0


@dataclass(frozen=True)
class Int8:
    """Eight-bit integers with one scale per output: 8 bits per weight."""

    name: ClassVar[str] = "int8"

    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        return [] if self.tile_outputs > 0 else ["tile_outputs must be positive"]

    def misfit(self, op: str, shape: tuple[int, ...]) -> list[str]:
        """Int8 fits every layer."""
        return []

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer."""
        return Geometry(
            layer, op, shape, self.name, tile_outputs=self.tile_outputs, scales=shape[0]
        )


@dataclass(frozen=True)
class _Grouped:
    """Settings of the grouped methods: few bits, and a scale for every group of weights.

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

    name: ClassVar[str]

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

    def misfit(self, op: str, shape: tuple[int, ...]) -> list[str]:
        """A grouped method fits every layer."""
        return []

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


Method = SSVQ | VQ | Int8 | Int4 | Int3 | Int2
