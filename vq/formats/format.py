"""What a format is: how the weight of a layer is stored, told in one place.

A format is a small frozen dataclass of settings. It knows what it would make of a layer from the
layer's shape alone (:meth:`Format.geometry`, :meth:`Format.misfit`), what making it costs, and how
to make it (:meth:`Format.compress`). What can be trained in it is told by the weight that it makes
(:class:`vq.formats.weights.Compressed`). :mod:`vq.formats.registry` finds formats by name.

Nothing here imports torch, so that recipes are read and workloads planned without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vq.container import Geometry

if TYPE_CHECKING:
    from torch import Tensor

    from vq.formats.weights import Compressed

__all__ = ["Clusterer", "Format", "Original"]

F32 = NDArray[np.float32]

_SECONDS_PER_WEIGHT = 1e-8
_BYTES_PER_WEIGHT = 28


@dataclass(frozen=True, eq=False)
class Original:
    """A layer to compress.

    Attributes
    ----------
    geometry : Geometry
        What the format makes of it.
    weight : Tensor
        As its module holds it, detached.
    importance : Tensor or None
        Non-negative weights of the squared errors, shaped like the weight; None if all are alike.
    per_output : bool
        Whether every output has a scale of its own, stored or taken over by a norm.
    """

    geometry: Geometry
    weight: "Tensor"
    importance: "Tensor | None" = None
    per_output: bool = False


class Clusterer(Protocol):
    """Finds codewords for points, and points' codewords (:mod:`vq.clustering`)."""

    def fit(self, points: F32, k: int, costs: F32 | None) -> F32:
        """Codebook [k, d] of ``points`` [N, d]; ``costs`` [N, d] weigh squared errors."""

    def nearest(
        self, points: F32, codebook: F32, costs: F32 | None
    ) -> tuple[NDArray[np.int64], F32]:
        """Index [N] of every point's nearest codeword, and its weighted squared distance [N]."""

    def seconds(self, points: int, d: int, k: int, *, weighted: bool, passes: int = 0) -> float:
        """Estimate the time of :meth:`fit` on this machine, or of ``passes`` of :meth:`nearest`."""


@dataclass(frozen=True)
class Format:
    """Base of all formats: frozen dataclasses whose fields are the settings that a recipe gives.

    One of them is ``tile_outputs``, outputs in one block of the stream order, which planners set.

    Attributes
    ----------
    name : str
        What recipes call it (``method``). What is stored is said by :meth:`geometry`.
    takes_codes : bool
        Whether a weight is whole numbers on a grid (:class:`vq.formats.grids.Grid`), which
        something else may choose: a solver of :mod:`rescomp`.
    """

    name: ClassVar[str]
    takes_codes: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Settings as a recipe gives them, with files read; paths are relative to ``folder``.

        Raises
        ------
        ConfigError
            If a file cannot be used.
        """
        return dict(settings)

    def to_json(self) -> dict[str, Any]:
        """Name and settings as plain data, from which a recipe reads the same format."""
        return {"method": self.name} | asdict(self)

    def problems(self) -> list[str]:
        """Everything that is wrong with these settings by themselves."""
        return []

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the settings were read from."""
        return ()

    def misfit(self, op: str, shape: tuple[int, ...]) -> list[str]:
        """Everything that keeps these settings from a layer."""
        return []

    @property
    def shared(self) -> str | None:
        """Layers whose formats give the same name are compressed together, on one codebook."""
        return None

    def agrees_with(self, other: "Format") -> bool:
        """Whether a layer of this format can share its codebook with one of the other."""
        return self == other

    def misfit_together(self, geometries: Sequence[Geometry]) -> list[str]:
        """Everything that keeps layers that share a codebook from it."""
        return []

    @property
    def leaves_scale(self) -> bool:
        """Whether the norm behind a layer takes its scale over (:mod:`vq.recipe.folding`)."""
        return False

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        """Describe a compressed layer as the container will."""
        raise NotImplementedError

    def seconds(self, geometries: Sequence[Geometry], clusterer: Clusterer) -> float:
        """Estimate the time of :meth:`compress` on this machine."""
        return _SECONDS_PER_WEIGHT * sum(g.weights for g in geometries)

    def memory_bytes(self, geometries: Sequence[Geometry]) -> int:
        """Estimate the peak of memory beside the model while :meth:`compress` works."""
        return _BYTES_PER_WEIGHT * sum(g.weights for g in geometries)

    def held_bytes(self, geometries: Sequence[Geometry]) -> int:
        """Memory of what :meth:`compress` makes, as it is trained: the weights, in fp32."""
        return 4 * sum(g.weights for g in geometries)

    def compress(self, layers: Sequence[Original], clusterer: Clusterer) -> "list[Compressed]":
        """Make the compressed weights of one layer, or of all layers that share a codebook."""
        raise NotImplementedError
