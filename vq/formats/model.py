"""The compressed layers of a model, as every later step sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.container import Layer, Provenance
from vq.formats.weights import Compressed, PlainVQ, SignSplit

__all__ = [
    "CompressedLayer",
    "compressed_layers",
    "is_compressed",
    "provenance_of",
    "set_provenance",
]

_PROVENANCE = "_signbook_provenance"


@dataclass(frozen=True, eq=False)
class CompressedLayer:
    """One compressed layer.

    Attributes
    ----------
    name : str
        Path of the module in its model.
    module : nn.Module
        The user's module; ``module.weight`` is the decoded weight.
    weight : Compressed
        The parametrisation that decodes it.
    originals : tuple of Parameter
        The tensors it trains.
    """

    name: str
    module: nn.Module
    weight: Compressed
    originals: tuple[Tensor, ...]

    @property
    def codebook(self) -> Tensor | None:
        """Trainable codebook [k, d], or None for the int methods."""
        return self.originals[0] if isinstance(self.weight, SignSplit | PlainVQ) else None

    @property
    def latent(self) -> Tensor | None:
        """Trainable latent signs [N, d] of SSVQ, else None."""
        return self.originals[1] if isinstance(self.weight, SignSplit) else None

    def to_layer(self) -> Layer:
        """Encode for the container, under its name in this model."""
        return self.weight.to_layer(self.name, *self.originals)


def compressed_layers(model: nn.Module) -> Iterator[CompressedLayer]:
    """Yield the compressed layers of ``model`` in model order, each weight once.

    Of modules that share one weight, only the first is listed.
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not is_compressed(module):
            continue
        chain = module.get_submodule("parametrizations.weight")
        weight = chain.get_submodule("0")
        assert isinstance(weight, Compressed)
        if id(weight) not in seen:
            seen.add(id(weight))
            yield CompressedLayer(name, module, weight, tuple(chain.parameters(recurse=False)))


def is_compressed(module: nn.Module) -> bool:
    """Whether the module's own weight is a compressed one."""
    if not parametrize.is_parametrized(module, "weight"):
        return False
    return isinstance(module.get_submodule("parametrizations.weight.0"), Compressed)


def set_provenance(model: nn.Module, provenance: Provenance) -> None:
    """Remember with the model how it was compressed."""
    setattr(model, _PROVENANCE, provenance)


def provenance_of(model: nn.Module) -> Provenance:
    """Return what :func:`set_provenance` stored, or an empty record."""
    found = getattr(model, _PROVENANCE, None)
    return found if isinstance(found, Provenance) else Provenance()
