"""Codebook formats: sub-vectors of a weight are indices into a small table of integers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from vq.container import AXES, INDEX_BITS_MAX, SUBVECTOR_MAX, TILE_OUTPUTS, Geometry
from vq.container.constants import CODE_MAX
from vq.errors import ConfigError
from vq.formats.book import Book
from vq.formats.format import Clusterer, Format, Original

if TYPE_CHECKING:
    from vq.formats.weights import Compressed

__all__ = ["SSVQ", "VQ", "has_codewords"]

#: Stands for a setting that is not given: it follows from the codebook, or is the format's own.
_FOLLOWS: Any = None


@dataclass(frozen=True)
class _Codebook(Format):
    """Settings that both codebook formats share.

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
    codebook : str, Book or None
        A fixed codebook, which is not trained: ``PATH`` of an array file [k, d] int8, stored once
        in a file however many layers use it, or ``rom:PATH``, which a file only names because the
        hardware holds it. ``d`` and ``k`` are the array's. Where no content is needed, to plan,
        ``sha256:<sha256>`` or ``rom:<sha256>`` of its bytes will do, with ``d`` and ``k``.
    """

    low: ClassVar[int]
    #: Values of d and k where neither they nor a codebook are given.
    default_shape: ClassVar[tuple[int, int]]

    d: int = _FOLLOWS
    k: int = _FOLLOWS
    axis: str = "auto"
    scale: str = "layer"
    tile_outputs: int = TILE_OUTPUTS
    shared: str | None = None
    codebook: Book | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.codebook, str | os.PathLike):
            self._set("codebook", Book.named(os.fspath(self.codebook), Path()))
        d, k = self.default_shape
        if (book := self.book) is not None:
            k, d = book.shape or (0, 0)
        self._set("d", d if self.d is None else self.d)
        self._set("k", k if self.k is None else self.k)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    @property
    def book(self) -> Book | None:
        """The fixed codebook, if there is one."""
        assert not isinstance(self.codebook, str)
        return self.codebook

    @classmethod
    def read(cls, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Settings with the fixed codebook read."""
        found = super().read(settings, folder)
        text = found.get("codebook")
        if text is not None:
            if not isinstance(text, str):
                raise ConfigError(f"codebook must be PATH or rom:PATH of an array, not {text!r}")
            found["codebook"] = Book.named(text, folder)
        return found

    def to_json(self) -> dict[str, Any]:
        """Name and settings; a fixed codebook by its sha256."""
        found = super().to_json()
        del found["codebook"]
        return found if self.book is None else found | {"codebook": self.book.name}

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of a fixed codebook."""
        return () if self.book is None or self.book.file is None else (self.book.file,)

    @property
    def sign_bits(self) -> int:
        """Stored signs per sub-vector."""
        raise NotImplementedError

    @property
    def leaves_scale(self) -> bool:
        """Whether the norm behind a layer takes its scale over."""
        return self.scale == "norm"

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        if self.book is not None and self.book.shape is None and not (self.d and self.k):
            return [f"d and k must be given with a codebook that is only named, {self.book.name}"]
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
        return found + self._book_problems()

    def _book_problems(self) -> list[str]:
        if self.book is None:
            return []
        found = self.book.problems(self.low, CODE_MAX)
        if self.shared is not None:
            found.append(f"shared must be absent beside a fixed codebook, not {self.shared!r}")
        if self.book.shape is not None:
            k, d = self.book.shape
            for field, given, own in (("d", self.d, d), ("k", self.k, k)):
                if given != own:
                    found.append(f"{field} must be its codebook's {own}, not {given}")
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
        elif self.shared is None and self.book is None:
            count = self.geometry("layer", op, shape).N
            if self.k > count:
                found.append(f"k must be at most its {count} sub-vectors, not {self.k}")
        return found

    def agrees_with(self, other: Format) -> bool:
        """Whether both mean one codebook: of one format, d and k."""
        return isinstance(other, type(self)) and (self.d, self.k) == (other.d, other.k)

    def misfit_together(self, geometries: Sequence[Geometry]) -> list[str]:
        """Layers that share a codebook must have enough sub-vectors for it."""
        count = sum(g.N for g in geometries)
        if self.shared is None or self.k <= count:
            return []
        return [
            f"codebook {self.shared!r}: k must be at most the {count} sub-vectors of its "
            f"layers, not {self.k}"
        ]

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer."""
        own = f"{layer}.codebook" if self.shared is None else f"codebook:{self.shared}"
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
            own if self.book is None else self.book.tensor,
        )

    def seconds(self, geometries: Sequence[Geometry], clusterer: Clusterer) -> float:
        """Estimate the time of clustering, or of fitting to the fixed codebook."""
        # About as much as ten assignments: the search for the scale sees a sample.
        return clusterer.seconds(
            sum(g.N for g in geometries),
            self.d,
            self.k,
            weighted=any(_is_ragged(g) for g in geometries),
            passes=0 if self.book is None else 10,
        )

    def memory_bytes(self, geometries: Sequence[Geometry]) -> int:
        """Estimate the peak of clustering: copies of the sub-vectors, and the search."""
        weights = sum(g.N * g.d for g in geometries)
        copies = 3 if len(geometries) == 1 else 4
        if any(_is_ragged(g) for g in geometries):  # every coordinate has a weight of its own
            copies += 5
        clustering = 4 * copies * weights + 32 * sum(g.N for g in geometries)
        # Decoding a layer once, to report its error, holds latents, signs, intermediate weights.
        copies = 8 if self.sign_bits else 5
        decoding = 4 * copies * max(g.N * g.d for g in geometries)
        return max(clustering, decoding)

    def held_bytes(self, geometries: Sequence[Geometry]) -> int:
        """Memory of what :meth:`compress` makes, as it is trained: indices, latent signs."""
        latents = self.d if self.sign_bits else 0
        return 4 * (1 + latents) * sum(g.N for g in geometries)

    def compress(self, layers: Sequence[Original], clusterer: Clusterer) -> "list[Compressed]":
        """Cluster the layers together, or fit each of them to the fixed codebook."""
        from vq.formats import codebook_weights, starts

        kind = codebook_weights.SignSplit if self.sign_bits else codebook_weights.PlainVQ
        book = None if self.book is None else self.book.integers
        if self.book is None:
            found = starts.cluster(layers, self.k, clusterer, magnitudes=bool(self.sign_bits))
        elif book is None:
            raise ConfigError(
                f"codebook {self.book.name} must be given by its file to compress with, not only "
                "by name; write codebook: PATH, or rom:PATH"
            )
        else:
            found = [
                starts.fit(layer, book, clusterer, magnitudes=bool(self.sign_bits))
                for layer in layers
            ]
        return [kind(x.geometry, x.weight, s) for x, s in zip(layers, found, strict=True)]


@dataclass(frozen=True)
class SSVQ(_Codebook):
    """Sign-splitting vector quantisation: a codebook of magnitudes and a sign per weight.

    Costs ``1 + log2(k) / d`` bits per weight and the codebook. With ``parity``, one sign in ``d``
    is not stored: the number of negative weights in a sub-vector is forced even by turning its
    least certain sign, which saves ``1 / d`` bit per weight.

    ``d`` is 8 and ``k`` is 16 unless given.

    >>> SSVQ(d=8, k=16).geometry("fc", "linear", (64, 128)).stream_bytes
    1536
    """

    name: ClassVar[str] = "ssvq"
    low: ClassVar[int] = 0
    default_shape: ClassVar[tuple[int, int]] = (8, 16)

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
    """Plain vector quantisation with a signed codebook: ``log2(k) / d`` bits per weight.

    ``d`` is 4 and ``k`` is 64 unless given.
    """

    name: ClassVar[str] = "vq"
    low: ClassVar[int] = -CODE_MAX
    default_shape: ClassVar[tuple[int, int]] = (4, 64)

    @property
    def sign_bits(self) -> int:
        """Plain codewords carry their own signs."""
        return 0


def has_codewords(rule: object) -> "TypeGuard[SSVQ | VQ]":
    """Whether a format looks weights up in a codebook."""
    return isinstance(rule, _Codebook)


def _is_ragged(g: Geometry) -> bool:
    return g.N * g.d != g.weights
