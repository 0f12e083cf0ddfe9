"""Modules whose weight stays packed, in the place of those whose weight was compressed.

A packed module keeps its name, its hooks and its class, of which it becomes a subclass. Linears,
embeddings and convolutions of one tap multiply by the packed weight; of any other, ``weight`` is
decoded whenever it is asked for.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vq.container import Container
from vq.errors import ConfigError
from vq.formats.model import compressed_layers, is_compressed, require_alone
from vq.formats.wrappers import bare, listed
from vq.inference.kernels import served_by
from vq.inference.operator import is_watched
from vq.inference.reference import ACTIVATIONS
from vq.inference.siblings import Siblings
from vq.inference.tiles import Tiling
from vq.inference.weight import PackedWeight
from vq.layers import op_of, plain_weight
from vq.progress import track

__all__ = [
    "is_packed",
    "pack_",
    "packed_layers",
    "require_activations",
    "stored_weights",
    "use_packed",
    "with_tied",
]

_NAME = "packed"


class _Packed:
    """What packed modules have besides their own class, which comes second."""

    packed: PackedWeight

    @property
    def weight(self) -> Tensor:
        """The weight, decoded anew; it refuses writes."""
        return self.packed()  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _anew, type(self).__bases__, vars(self)


class _Linear(_Packed):
    siblings: Siblings | None = None

    def forward(self: Any, x: Tensor) -> Tensor:
        if self.siblings is not None and not is_watched(x):
            shared = self.siblings.multiply(self, x)
            if shared is not None:
                return shared  # type: ignore[no-any-return]
        return self.packed.multiply(x, self.bias)  # type: ignore[no-any-return]


class _Embedding(_Packed):
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.packed.rows(x)  # type: ignore[no-any-return]


class _Pointwise(_Packed):
    def forward(self: Any, x: Tensor) -> Tensor:
        for axis, stride in enumerate(self.stride, start=x.ndim - len(self.stride)):
            if stride > 1:
                x = x[(slice(None),) * axis + (slice(None, None, stride),)]
        channels = x.ndim - len(self.stride) - 1
        y: Tensor = self.packed.multiply(x.movedim(channels, -1), self.bias)
        return y.movedim(-1, channels)


def _way(module: nn.Module) -> type[_Packed]:
    """What multiplies in place of a module's own ``forward``; _Packed itself if nothing does."""
    kind = type(module)
    if op_of(module) == "linear_t" and kind.__name__ == "Conv1D":
        return _Linear
    if kind.forward is nn.Linear.forward:
        return _Linear
    if kind.forward is nn.Embedding.forward and module.max_norm is None:
        return _Embedding
    if kind.forward in (nn.Conv1d.forward, nn.Conv2d.forward):
        taps: Any = module.kernel_size
        padded = any(module.padding) if isinstance(module.padding, tuple) else False
        if all(n == 1 for n in taps) and module.groups == 1 and not padded:
            return _Pointwise
    return _Packed


_CLASSES: dict[tuple[type[_Packed], type[nn.Module]], type[nn.Module]] = {}


def _class(way: type[_Packed], kind: type[nn.Module]) -> type[nn.Module]:
    """The subclass of both, made once."""
    if (way, kind) not in _CLASSES:
        own = type(f"Packed{kind.__name__}", (way, kind), {"__module__": kind.__module__})
        _CLASSES[way, kind] = own
    return _CLASSES[way, kind]


def _anew(way: type[_Packed], kind: type[nn.Module]) -> nn.Module:
    """A packed module without contents, for copies."""
    own = _class(way, kind)
    return own.__new__(own)


def is_packed(module: nn.Module) -> bool:
    """Whether the module's own weight is packed."""
    return isinstance(module, _Packed)


def packed_layers(model: nn.Module) -> Iterator[tuple[str, PackedWeight]]:
    """Names and weights of packed layers in model order, each weight once."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, _Packed) and id(module.packed) not in seen:
            seen.add(id(module.packed))
            yield name, module.packed


def use_packed(modules: Mapping[str, nn.Module], weights: Mapping[str, PackedWeight]) -> None:
    """Let modules have packed weights in place of those that they have, by the modules' names.

    One warning lists the layers that are decoded at every call.
    """
    slow, unserved = [], []
    parents: dict[tuple[str, int], list[Any]] = {}
    for name, module in modules.items():
        if is_compressed(module):
            module.__class__ = type(module).__bases__[0]  # torch made the other for this module
            del module._modules["parametrizations"]
        module._parameters.pop("weight", None)
        way = _way(module)
        module.__class__ = _class(way, type(module))
        module.add_module(_NAME, weights[name])
        if way is _Linear:
            place = name.rpartition(".")[0], weights[name].geometry.I
            parents.setdefault(place, []).append(module)
        if way is _Packed:
            slow.append(name)
        elif served_by(Tiling.of(weights[name].geometry)) == "torch":
            unserved.append(name)
    for linears in parents.values():
        shared = Siblings() if len(linears) > 1 else None
        for linear in linears:
            linear.siblings = shared
    for names, why in (
        (slow, "are no linears, embeddings or convolutions of one tap"),
        (unserved, "are of a format that no kernel serves"),
    ):
        if names:
            warnings.warn(
                f"packed layers {listed(names)} {why}: they are decoded at every call, in the time "
                "that takes; loaded without packed=True, they take their dense size instead",
                stacklevel=3,
            )


def stored_weights(
    container: Container, model: nn.Module, activations: str, *, progress: bool
) -> dict[str, PackedWeight]:
    """Packed weights of a file, by the names of its layers, for a model that has them.

    Memory is that of the packed weights: what of the file is mapped is given back layer by layer.

    Raises
    ------
    ContainerError
        If the file is damaged.
    """
    codebooks: dict[str, Tensor] = {}
    found: dict[str, PackedWeight] = {}
    for entry in track(container.layers, "packing weights", enabled=progress):
        name = entry.geometry.name
        weight: Any = model.get_submodule(name).weight
        found[name] = PackedWeight.stored(container, name, weight.dtype, activations, codebooks)
        container.forget(f"{name}.stream")
    return found


def with_tied(model: nn.Module, weights: Mapping[str, PackedWeight]) -> dict[str, PackedWeight]:
    """Packed weights by the names of all modules that share the weights of those given."""
    held = {id(plain_weight(model.get_submodule(name))): own for name, own in weights.items()}
    found = dict(weights)
    for name, module in model.named_modules(remove_duplicate=False):
        if (own := held.get(id(plain_weight(module)))) is not None:
            found.setdefault(name, own)
    return found


def require_activations(activations: str) -> None:
    """Refuse what activations cannot be rounded to.

    Raises
    ------
    ConfigError
    """
    if activations not in ACTIVATIONS:
        raise ConfigError(
            f"activations must be one of {', '.join(ACTIVATIONS)}, not {activations!r}"
        )


@torch.no_grad()
def pack_(model: nn.Module, *, activations: str = "int8") -> nn.Module:
    """Let a compressed model run from its packed weights, and return it.

    Its compressed weights give way to what a file would hold of them: indices, signs, codebooks
    and scales, by which linears, embeddings and convolutions of one tap multiply. Other
    convolutions are decoded whenever they are called, which a warning says. The model is then for
    inference only, and no parameter of it asks for a gradient; ``vq.save`` writes the bytes that it
    would have written before.

    Parameters
    ----------
    activations : "int8", "int16" or "exact"
        What linears read is rounded for each token to 8 or 16 bits, or not at all
        (:mod:`vq.inference.reference`).

    Raises
    ------
    ConfigError
        If the model holds no compressed layer, or weights with another parametrisation.
    """
    require_activations(activations)
    model = bare(model)
    layers = list(compressed_layers(model))
    if not layers:
        raise ConfigError("model must hold a compressed layer, not none; call vq.compress_ first")
    require_alone(model)
    compressed = {n: m for n, m in model.named_modules(remove_duplicate=False) if is_compressed(m)}
    others = [
        name
        for name, module in compressed.items()
        if len(list(module.get_submodule("parametrizations").children())) > 1
    ]
    if others:
        raise ConfigError(
            f"model to pack must have no parametrisations but compressed weights, unlike "
            f"{listed(others)}; remove them"
        )
    codebooks: dict[str, Tensor] = {}
    packed: dict[int, PackedWeight] = {}
    for layer in layers:
        stored = layer.to_layer()
        place = next(iter((*layer.originals, *layer.weight.buffers()))).device
        packed[id(layer.weight)] = PackedWeight.encoded(
            stored, layer.weight.dtype, activations, codebooks
        ).to(place)
    weights = {
        name: packed[id(module.get_submodule("parametrizations.weight.0"))]
        for name, module in compressed.items()
    }
    use_packed(compressed, weights)
    return model.requires_grad_(False)
