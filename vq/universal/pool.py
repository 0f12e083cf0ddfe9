"""What a universal codebook is made of: equally many sub-vectors of every network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container import Geometry
from vq.errors import ConfigError, WeightError, bulleted
from vq.formats.book import Book
from vq.formats.codebook import SSVQ, VQ, has_codewords
from vq.formats.format import Format, Original
from vq.formats.points import root_mean_square, sub_vectors
from vq.formats.wrappers import listed
from vq.layers import candidates, op_of, weight_id
from vq.recipe.plain import check_values
from vq.recipe.recipe import Recipe
from vq.recipe.selection import select

__all__ = ["Drawn", "Source", "draw", "source_of", "told", "whole_sub_vectors"]

F32 = NDArray[np.float32]

#: Operations whose layers are drawn from where no recipe chooses them.
_OPS = ("linear", "linear_t", "conv1d", "conv2d")
#: Operations of bare weights, by their dimensions.
_OP_OF = {2: "linear", 3: "conv1d", 4: "conv2d"}
#: The book that there is not yet: a format with it asks of a layer what one with the book will.
_COMING = Book("rom:" + 64 * "0")


@dataclass(frozen=True, eq=False)
class Source:
    """Layers of a network that sub-vectors are drawn from.

    Attributes
    ----------
    name : str
    kind : SSVQ or VQ
        What they will be; where a recipe gives them several formats, the first one.
    layers : list of Original
    left_out : list of str
        Layers that could have been drawn from, but do not fit the format, hold no whole sub-vector,
        or nothing but zeros.
    """

    name: str
    kind: SSVQ | VQ
    layers: list[Original]
    left_out: list[str]


@dataclass(frozen=True)
class Drawn:
    """What was drawn from a network.

    Attributes
    ----------
    name : str
    geometries : tuple of Geometry
        Layers that were drawn from, as they will be with the book.
    held, counts : tuple of int
        Whole sub-vectors of each, and how many were drawn.
    left_out : tuple of str
        See :class:`Source`.
    """

    name: str
    geometries: tuple[Geometry, ...]
    held: tuple[int, ...]
    counts: tuple[int, ...]
    left_out: tuple[str, ...]


def source_of(
    name: str, network: nn.Module | Sequence[Tensor], rules: SSVQ | VQ | Recipe
) -> Source:
    """Choose the layers of a network: by a recipe, or all that a format fits.

    Raises
    ------
    ConfigError
        If there is none, or the recipe is none for this network, or has several codebooks.
    WeightError
        If a weight holds NaN or infinity.
    """
    try:
        kind = _kind_of(rules) if isinstance(rules, Recipe) else rules
        if isinstance(network, nn.Module):
            found, names = _of_module(network, rules)
        else:
            found, names = _of_weights(network, rules)
    except ConfigError as error:
        raise type(error)(f"network {name!r}: {error}") from error
    _check_finite(name, found)
    layers = [x for x in found if min(_whole(x.geometry)) and bool(x.weight.any())]
    chosen = {x.geometry.name for x in layers}
    left_out = [each for each in names if each not in chosen]
    if not layers:
        lacking = f"; {listed(left_out)} will not do" if left_out else ""
        raise ConfigError(
            f"network {name!r}: must have a layer with whole sub-vectors of d = {kind.d} that are "
            f"not all zero, not none{lacking}; choose a smaller d, or leave the network out"
        )
    return Source(name, kind, layers, left_out)


def draw(source: Source, samples: int, rng: np.random.Generator) -> tuple[F32, Drawn]:
    """Draw sub-vectors of a network: of each layer in proportion to how many it holds.

    Without replacement, where a layer has enough. SSVQ gets their magnitudes.

    Returns
    -------
    points : [samples, d] float32
        In units of the root mean square of their layer, or of their output if every one has its
        own scale.
    drawn : Drawn
    """
    held = [rows * columns for rows, columns in (_whole(x.geometry) for x in source.layers)]
    counts = _in_proportion(held, samples)
    parts = [
        whole_sub_vectors(layer)[rng.choice(there, count, replace=count > there)]
        for layer, there, count in zip(source.layers, held, counts, strict=True)
        if count
    ]
    points = np.concatenate(parts)
    if source.kind.sign_bits:
        np.abs(points, out=points)
    geometries = tuple(layer.geometry for layer in source.layers)
    left_out = tuple(source.left_out)
    return points, Drawn(source.name, geometries, tuple(held), tuple(counts), left_out)


def whole_sub_vectors(layer: Original) -> F32:
    """Sub-vectors of a layer [n, d], in units, in grid order, without ragged ones."""
    g = layer.geometry
    unit = root_mean_square(layer.weight, g, layer.per_output)
    grid = sub_vectors(layer.weight, g, unit).reshape(*g.grid, g.d)
    rows, columns = _whole(g)
    return grid[:rows, :columns].reshape(-1, g.d)


def _whole(g: Geometry) -> tuple[int, int]:
    """Rows and columns of the grid of sub-vectors that need no filling."""
    return (g.O // g.d, g.I) if g.axis == "out" else (g.O, g.I // g.d)


def _in_proportion(sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers that add up to ``total``, each as near to its share as that lets it be."""
    whole = sum(sizes)
    counts = [total * size // whole for size in sizes]
    rests = sorted(range(len(sizes)), key=lambda i: -(total * sizes[i] % whole))
    for i in rests[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _kind_of(recipe: Recipe) -> SSVQ | VQ:
    """What a recipe makes of the layers of its codebook formats, which must agree on that."""
    kinds = [rule for rule in recipe.rules.values() if has_codewords(rule)]
    if not kinds:
        raise ConfigError("recipe must give layers the method ssvq or vq, to draw from them")
    for other in kinds[1:]:
        if not other.agrees_with(kinds[0]):
            raise ConfigError(
                f"recipe must have one method, d and k for one codebook, not {told(kinds[0])} and "
                f"{told(other)}"
            )
    return kinds[0]


def told(kind: SSVQ | VQ) -> str:
    """A format in an error."""
    return f"{kind.name} of d = {kind.d}, k = {kind.k}"


def _fixed(rule: Format | None) -> Format | None:
    """A format as it will be with the book, whatever codebook it has."""
    return replace(rule, codebook=_COMING, shared=None) if has_codewords(rule) else rule


def _of_module(model: nn.Module, rules: SSVQ | VQ | Recipe) -> tuple[list[Original], list[str]]:
    """Layers that a format fits, and the names of these and of those that it should have fitted."""
    check_values(model)
    if isinstance(rules, Recipe):
        layers = _selected(model, rules.rules, skip_misfits=False)
        return layers, [x.geometry.name for x in layers]
    ties = _own(model)
    if not ties:
        return [], []
    every = dict.fromkeys((name for tied in ties for name in tied), rules)
    return _selected(model, every, skip_misfits=True), [first for first, *_ in ties]


def _selected(
    model: nn.Module, rules: Mapping[str, Format | None], *, skip_misfits: bool
) -> list[Original]:
    recipe = Recipe({key: _fixed(rule) for key, rule in rules.items()})
    return [
        Original(x.geometry, x.weight, per_output=x.per_output)
        for x in select(model, recipe, skip_misfits=skip_misfits).layers
        if has_codewords(x.format)
    ]


def _own(model: nn.Module) -> list[list[str]]:
    """Names of linears and convolutions, by weight; without weights that embeddings have, too."""
    ties: dict[int, list[tuple[str, str | None]]] = {}
    for name, module in candidates(model):
        ties.setdefault(weight_id(module), []).append((name, op_of(module)))
    kept = [tied for tied in ties.values() if all(op in _OPS for _, op in tied)]
    return [[name for name, _ in tied] for tied in kept]


def _of_weights(
    weights: Sequence[Tensor], rules: SSVQ | VQ | Recipe
) -> tuple[list[Original], list[str]]:
    """The same of bare weights, outputs first, by their places."""
    if isinstance(rules, Recipe):
        raise ConfigError("must be a module, not weights, for a recipe to choose its layers")
    kind = _fixed(rules)
    assert kind is not None
    layers = []
    for place, weight in enumerate(weights):
        op = _OP_OF.get(weight.ndim)
        if op is None or not weight.numel():
            raise ConfigError(
                f"weight {place} must have 2 to 4 dimensions and numbers in it, not the shape "
                f"{list(weight.shape)}"
            )
        shape = tuple(weight.shape)
        if not kind.misfit(op, shape):
            geometry = kind.geometry(str(place), op, shape)
            layers.append(Original(geometry, weight.detach(), per_output=geometry.scales > 1))
    return layers, [str(place) for place in range(len(weights))]


def _check_finite(name: str, layers: list[Original]) -> None:
    broken = [
        f"layer {x.geometry.name!r}: weights must be finite, but {bad} are NaN or infinite"
        for x in layers
        if (bad := int((~torch.isfinite(x.weight)).sum()))
    ]
    if broken:
        raise WeightError(bulleted(f"network {name!r}", broken))
