"""The compressed layers of a model, as every later step sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.container import Layer, Provenance
from vq.parametrizations import Compressed, Int8Weight, SignSplit

__all__ = ["CompressedLayer", "compressed_layers", "provenance_of", "set_provenance"]

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
        """Trainable codebook [k, d], or None for int8."""
        return None if isinstance(self.weight, Int8Weight) else self.originals[0]

    @property
    def latent(self) -> Tensor | None:
        """Trainable latent signs [N, d] of SSVQ, else None."""
        return self.originals[1] if isinstance(self.weight, SignSplit) else None

    def to_layer(self) -> Layer:
        """Encode for the container."""
        return self.weight.to_layer(self.name, *self.originals)


def compressed_layers(model: nn.Module) -> Iterator[CompressedLayer]:
    """Yield the compressed layers of ``model`` in model order."""
    for name, module in model.named_modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        chain = module.parametrizations["weight"]
        if isinstance(chain[0], Compressed):
            count = sum(1 for _ in chain.parameters(recurse=False))
            names = ["original"] if count == 1 else [f"original{i}" for i in range(count)]
            yield CompressedLayer(name, module, chain[0], tuple(getattr(chain, n) for n in names))


def set_provenance(model: nn.Module, provenance: Provenance) -> None:
    """Remember with the model how it was compressed."""
    setattr(model, _PROVENANCE, provenance)


def provenance_of(model: nn.Module) -> Provenance:
    """Return what :func:`set_provenance` stored, or an empty record."""
    found = getattr(model, _PROVENANCE, None)
    return found if isinstance(found, Provenance) else Provenance()
