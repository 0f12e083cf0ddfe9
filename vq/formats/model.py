"""The compressed layers of a model, as every later step sees them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.container import Layer, Provenance
from vq.errors import ConfigError, bulleted
from vq.formats.casts import uncast, watch_casts
from vq.formats.codebook_weights import CodebookWeight
from vq.formats.kept import tied_tensors
from vq.formats.weights import Compressed

__all__ = [
    "CompressedLayer",
    "compressed_layers",
    "is_compressed",
    "kept_tensors",
    "provenance_of",
    "require_alone",
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
        """Trainable codebook [k, d], or None where there is none."""
        return self.weight.tensor("codebook", self.originals)

    @property
    def latent(self) -> Tensor | None:
        """Trainable latent signs [N, d], or None where there are none."""
        return self.weight.tensor("signs", self.originals)

    @property
    def scales(self) -> Tensor | None:
        """Factors of the scales, while these learn (:func:`vq.learning.rates.learning`)."""
        return self.weight.freed_scales()

    @property
    def lookup(self) -> CodebookWeight | None:
        """The weight, if it looks codewords up by indices."""
        return self.weight if isinstance(self.weight, CodebookWeight) else None

    def norm_scale(self) -> Tensor | None:
        """What 1 of the weight is worth in the original one, where a norm took its scale over."""
        return self.weight.norm_scale(*self.originals)

    def clamp_(self) -> None:
        """Put the trained tensors back, after a step, where they mean what they should."""
        self.weight.clamp_(*self.originals)

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


def require_alone(model: nn.Module) -> None:
    """Refuse compressed weights that another parametrisation, put on top, changes.

    Raises
    ------
    ConfigError
        With all of them: no file would hold what is on top.
    """
    problems = []
    for name, module in model.named_modules():
        if is_compressed(module):
            _, *others = module.get_submodule("parametrizations.weight").children()
            if others:
                kinds = " and ".join(type(other).__name__.strip("_") for other in others)
                problems.append(
                    f"layer {name!r}: nothing may change its compressed weight, but {kinds} does, "
                    "which would be lost; make an adapter a module around the layer"
                )
    if problems:
        raise ConfigError(bulleted("model to store", problems))


def set_provenance(model: nn.Module, provenance: Provenance) -> None:
    """Remember with the model how it was compressed, and from now on what casts take from it."""
    setattr(model, _PROVENANCE, provenance)
    watch_casts(model)


def provenance_of(model: nn.Module) -> Provenance:
    """Return what :func:`set_provenance` stored, or an empty record."""
    found = getattr(model, _PROVENANCE, None)
    return found if isinstance(found, Provenance) else Provenance()


def kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that no compressed layer holds, each once, by the first of its names.

    One that nothing but casts has changed since the model was compressed is as it was before.
    """
    prefixes = tuple(
        f"{name}.parametrizations.weight."
        for name, module in model.named_modules(remove_duplicate=False)
        if is_compressed(module)
    )
    state = model.state_dict(keep_vars=True)
    before = uncast(model)
    groups = tied_tensors({n: t for n, t in state.items() if not n.startswith(prefixes)})
    return {names[0]: before.get(id(tensor), tensor) for names, tensor in groups}
