"""What one layer's stream looks like: every size in the container follows from here."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vq.container.constants import (
    AXES,
    CHUNK_SUBVECTORS,
    GRANULE_BYTES,
    GROUPED_BITS,
    INDEX_BITS_MAX,
    METHODS,
    OPS,
    SUBVECTOR_MAX,
    TILE_OUTPUTS,
)
from vq.errors import ContainerError

__all__ = ["Geometry", "index_bits", "is_text", "round_up"]

_ROM = re.compile(r"rom:[0-9a-f]{64}")
_LARGEST = 2**48


def round_up(count: int, unit: int) -> int:
    """Smallest multiple of ``unit`` that is not below ``count``."""
    return -(-count // unit) * unit


def index_bits(k: int) -> int:
    """Bits of an index into ``k`` codewords, ``b = ceil(log2 k)``."""
    return (k - 1).bit_length()


def is_text(name: str) -> bool:
    """Whether a name can be printed and stored: not empty, and no half of a surrogate pair."""
    return name != "" and not any("\ud800" <= letter <= "\udfff" for letter in name)


@dataclass(frozen=True)
class Geometry:
    """Shape and coding of one compressed layer.

    Attributes
    ----------
    name : str
        Name of the layer, which is the path of its module.
    op : str
        One of ``OPS``.
    shape : tuple of int
        Shape of the weight tensor, outputs first: ``[O, C, *taps]``. The module of a ``linear_t``
        holds the transpose, ``[C, O]``.
    method : str
        One of ``METHODS``.
    axis : str
        "in": a sub-vector is ``d`` consecutive inputs of one output, channels innermost; "kernel":
        the same with taps innermost; "out": ``d`` consecutive outputs at one input. Scalar methods
        (``d = 1``) use "in".
    tile_outputs : int
        Outputs in one block of the stream order.
    d, k : int
        Sub-vector length and codewords; ``d = 1`` and ``k = 0`` for scalar methods.
    sign_bits : int
        Stored signs per sub-vector: ``d``, ``d - 1`` (parity) or 0.
    scales : int
        Number of fp32 scales: 1, or one per output. Grouped methods have none. A layer of ssvq or
        vq without any holds the integers themselves: what follows it makes up for their size.
    codebook : str
        Name of the tensor that holds the codebook, ``rom:<sha256>`` for a fixed one, or "".
    group : int
        Weights along I that share a group scale (grouped methods), else 0.
    zeros : bool
        Whether groups have their own zero; if not, the zero is ``2**(bits - 1)``.

    Raises
    ------
    ContainerError
        If the fields contradict each other. The message names the layer and the field.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    method: str
    axis: str = "in"
    tile_outputs: int = TILE_OUTPUTS
    d: int = 1
    k: int = 0
    sign_bits: int = 0
    scales: int = 1
    codebook: str = ""
    group: int = 0
    zeros: bool = False

    def __post_init__(self) -> None:
        self._require(is_text(self.name), "name", "non-empty text", self.name)
        self._require(self.op in OPS, "op", f"one of {', '.join(OPS)}", self.op)
        self._require(self.method in METHODS, "method", f"one of {', '.join(METHODS)}", self.method)
        self._require(
            2 <= len(self.shape) <= 5 and all(0 < n < _LARGEST for n in self.shape),
            "shape",
            "2 to 5 positive dimensions",
            list(self.shape),
        )
        self._require(
            self.op != "linear_t" or len(self.shape) == 2, "shape", "[O, C]", list(self.shape)
        )
        self._require(self.axis in AXES, "axis", f"one of {', '.join(AXES)}", self.axis)
        self._require(
            0 < self.tile_outputs < _LARGEST, "tile_outputs", "positive", self.tile_outputs
        )
        if self.method in ("ssvq", "vq"):
            self._check_codebook()
        else:
            self._check_scalar()

    def _check_codebook(self) -> None:
        self._require(1 <= self.d <= SUBVECTOR_MAX, "d", f"1 to {SUBVECTOR_MAX}", self.d)
        self._require(
            2 <= self.k <= 1 << INDEX_BITS_MAX, "k", f"2 to {1 << INDEX_BITS_MAX}", self.k
        )
        allowed = (0,) if self.method == "vq" else (self.d, self.d - 1) if self.d > 1 else (1,)
        self._require(
            self.sign_bits in allowed,
            "sign_bits",
            " or ".join(map(str, allowed)),
            self.sign_bits,
        )
        self._require(
            self.axis != "out" or self.tile_outputs % self.d == 0,
            "tile_outputs",
            f"a multiple of d = {self.d} when axis is 'out'",
            self.tile_outputs,
        )
        self._require(
            self.scales in (0, 1, self.O),
            "scales",
            f"0, 1 or {self.O}, one per output",
            self.scales,
        )
        named = self.codebook != "" and not self.in_rom
        self._require(
            named or _ROM.fullmatch(self.codebook) is not None,
            "codebook",
            "the name of a tensor or rom:<sha256>",
            self.codebook,
        )
        self._require((self.group, self.zeros) == (0, False), "group", "absent", self.group)

    def _check_scalar(self) -> None:
        for field, want in (("d", 1), ("k", 0), ("sign_bits", 0), ("axis", "in"), ("codebook", "")):
            given = getattr(self, field)
            self._require(given == want, field, f"{want!r} for method {self.method}", given)
        if self.method == "int8":
            self._require(self.scales in (1, self.O), "scales", f"1 or {self.O}", self.scales)
            self._require((self.group, self.zeros) == (0, False), "group", "absent", self.group)
        else:
            self._require(self.scales == 0, "scales", "0 for a grouped method", self.scales)
            self._require(0 < self.group < _LARGEST, "group", "positive", self.group)

    def _require(self, holds: bool, field: str, requirement: str, given: object) -> None:
        if not holds:
            raise ContainerError(
                f"layer {self.name!r}: {field} must be {requirement}, not {given!r}"
            )

    @cached_property
    def O(self) -> int:
        """Outputs: rows of the weight matrix."""
        return self.shape[0]

    @cached_property
    def I(self) -> int:
        """Inputs: columns of the weight matrix, taps times input channels."""
        return math.prod(self.shape[1:])

    @cached_property
    def weights(self) -> int:
        """Real weights of the layer; the filling of ragged sub-vectors is not counted."""
        return self.O * self.I

    @property
    def in_rom(self) -> bool:
        """Whether the codebook is a fixed one that the file only names."""
        return self.codebook.startswith("rom:")

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of sub-vectors."""
        if self.axis == "out":
            return -(-self.O // self.d), self.I
        return self.O, -(-self.I // self.d)

    @cached_property
    def tile(self) -> int:
        """Rows of the grid in one block of the stream order."""
        return self.tile_outputs // self.d if self.axis == "out" else self.tile_outputs

    @cached_property
    def N(self) -> int:
        """Sub-vectors of the layer."""
        return self.grid[0] * self.grid[1]

    @cached_property
    def b(self) -> int:
        """Bits of one index (codebook methods) or of one code (scalar methods)."""
        if self.k:
            return index_bits(self.k)
        return GROUPED_BITS.get(self.method, 8)

    @cached_property
    def chunks(self) -> int:
        """Chunks of 512 sub-vectors in the stream; the last one may be short."""
        return -(-self.N // CHUNK_SUBVECTORS)

    @cached_property
    def last_subvectors(self) -> int:
        """Sub-vectors R of the last chunk, 1 to 512."""
        return self.N - (self.chunks - 1) * CHUNK_SUBVECTORS

    @cached_property
    def index_part_bytes(self) -> int:
        """Bytes of the index part, the same in every chunk."""
        return GRANULE_BYTES * self.b

    @cached_property
    def sign_part_bytes(self) -> int:
        """Bytes of the sign part of a full chunk."""
        return GRANULE_BYTES * self.sign_bits

    @cached_property
    def last_sign_part_bytes(self) -> int:
        """Bytes of the sign part of the last chunk, ``64 * ceil(R * sign_bits / 512)``."""
        return GRANULE_BYTES * -(-self.last_subvectors * self.sign_bits // CHUNK_SUBVECTORS)

    @cached_property
    def last_granules(self) -> int:
        """Groups of 512 weights in the last chunk, ``ceil(R * d / 512)``."""
        return -(-self.last_subvectors * self.d // CHUNK_SUBVECTORS)

    @cached_property
    def stream_bytes(self) -> int:
        """Exact length of the stream, in bytes, its own padding included."""
        if not self.is_packed:
            return round_up(self.weights, GRANULE_BYTES)
        full = self.index_part_bytes + self.sign_part_bytes
        return full * (self.chunks - 1) + self.index_part_bytes + self.last_sign_part_bytes

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes of the stream that are not padding: the bits of all sub-vectors, rounded up."""
        return -(-self.N * (self.b + self.sign_bits) // 8)

    @property
    def is_packed(self) -> bool:
        """Whether weights must be decoded; if not, the stream is a byte for every weight."""
        return self.method != "int8"

    @cached_property
    def decoded_weights(self) -> int:
        """Weights that the stream decodes to, the filling of its last 512 included."""
        if not self.is_packed:
            return self.stream_bytes
        return CHUNK_SUBVECTORS * ((self.chunks - 1) * self.d + self.last_granules)

    @cached_property
    def group_width(self) -> int:
        """Weights along I that share a scale; the last group of an output may be shorter."""
        return min(self.group or self.I, self.I)

    @cached_property
    def groups(self) -> int:
        """Group scales of a grouped method: one per output and run of ``group`` inputs."""
        return self.O * -(-self.I // self.group) if self.group else 0

    def to_json(self) -> dict[str, Any]:
        """Fields as the container's metadata stores them."""
        return {
            "name": self.name, "op": self.op, "shape": list(self.shape), "method": self.method,
            "axis": self.axis, "tile_outputs": self.tile_outputs, "d": self.d, "k": self.k,
            "b": self.b, "sign_bits": self.sign_bits, "scales": self.scales,
            "codebook": self.codebook, "group": self.group, "zeros": self.zeros,
            "weights": self.weights,
        }  # fmt: skip

    @classmethod
    def from_json(cls, fields: object) -> "Geometry":
        """Read untrusted metadata. Unknown, missing and ill-typed fields are refused."""
        if not isinstance(fields, dict):
            raise ContainerError(f"a layer must be a JSON object, not {type(fields).__name__}")
        name = fields.get("name")
        if not isinstance(name, str):
            raise ContainerError(f"a layer's name must be str, not {type(name).__name__}")
        kinds: dict[str, type] = {
            "name": str, "op": str, "shape": list, "method": str, "axis": str,
            "tile_outputs": int, "d": int, "k": int, "b": int, "sign_bits": int, "scales": int,
            "codebook": str, "group": int, "zeros": bool, "weights": int,
        }  # fmt: skip
        for field in sorted(kinds.keys() ^ fields.keys()):
            state = "unknown" if field in fields else "missing"
            raise ContainerError(f"layer {name!r}: field {field!r} is {state}")
        for field, kind in kinds.items():
            if type(fields[field]) is not kind:
                raise ContainerError(
                    f"layer {name!r}: {field} must be {kind.__name__}, "
                    f"not {type(fields[field]).__name__}"
                )
        shape = fields["shape"]
        if not all(type(n) is int for n in shape):
            raise ContainerError(f"layer {name!r}: shape must be integers")
        derived = {"b": fields["b"], "weights": fields["weights"]}
        own = {f: v for f, v in fields.items() if f not in derived}
        geometry = cls(**{**own, "shape": tuple(shape)})
        for field, given in derived.items():
            want = getattr(geometry, field)
            geometry._require(given == want, field, str(want), given)
        return geometry
