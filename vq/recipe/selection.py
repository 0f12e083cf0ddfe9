"""Which layers of a model a recipe compresses, and into what; decided before any work."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vq.container import Geometry
from vq.errors import ConfigError, RecipeError, WeightError, bulleted
from vq.formats.format import Format
from vq.formats.model import is_compressed
from vq.layers import candidates, check_supported, op_of, shape_of, weight_id
from vq.recipe.folding import find_norms, is_per_output
from vq.recipe.plain import check_bare, check_plain
from vq.recipe.recipe import Recipe

__all__ = ["Selected", "Selection", "check_finite", "select"]


@dataclass(frozen=True, eq=False)
class Selected:
    """One weight to compress.

    Attributes
    ----------
    name : str
        Path of the first module that holds it.
    format : Format
    geometry : Geometry
    modules : tuple of nn.Module
        All modules that hold it; more than one if the weight is tied.
    norm : nn.Module or None
        The norm that takes over its scale, if the format leaves it to one.
    """

    name: str
    format: Format
    geometry: Geometry
    modules: tuple[nn.Module, ...]
    norm: nn.Module | None = None

    @property
    def per_output(self) -> bool:
        """Whether the weight has a scale for every output, stored or taken over."""
        return self.geometry.scales > 1 or (self.norm is not None and is_per_output(self.norm))

    @property
    def weight(self) -> Tensor:
        """The original weight, detached."""
        weight = self.modules[0].weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def padding(self) -> list[int]:
        """Rows of an embedding that are its padding, and zero; none of one on the meta device."""
        weight, embeddings = self.weight, (m for m in self.modules if isinstance(m, nn.Embedding))
        rows = {m.padding_idx for m in embeddings if m.padding_idx is not None}
        return [] if weight.is_meta else [row for row in sorted(rows) if not weight[row].any()]


@dataclass(frozen=True)
class Selection:
    """Weights to compress and names of layers to keep, in model order."""

    layers: list[Selected]
    kept: list[str]

    def codebook_groups(self) -> list[list[Selected]]:
        """Layers to compress together: those that share a codebook, all others alone."""
        groups: dict[tuple[str, bool], list[Selected]] = {}
        for layer in self.layers:
            shared = layer.format.shared
            groups.setdefault((shared or layer.name, shared is not None), []).append(layer)
        return list(groups.values())


def select(model: nn.Module, recipe: Recipe, *, skip_misfits: bool = False) -> Selection:
    """Apply a recipe to a model without changing it.

    With ``skip_misfits``, layers that a format does not fit are left out instead of refused.

    Raises
    ------
    RecipeError
        If a pattern matches nothing, a format does not fit its layer, no norm takes over its
        scale, or tied layers get different formats. All misfits are in one error.
    UnsupportedLayerError
        If a selected module is of a kind that no format can store.
    ConfigError
        If a selected layer is compressed already or its weight is no plain parameter, or the
        model is wrapped (``torch.compile``, ``DataParallel``) or has no shapes yet.
    """
    check_bare(model)
    modules = dict(candidates(model))
    if "" in modules:
        raise ConfigError("model must contain its layers, not be one; wrap it in nn.Sequential")
    chosen = recipe.resolve(modules)
    done = [n for n, f in chosen.items() if f and is_compressed(modules[n])]
    if done:
        raise ConfigError(
            f"layers must not be compressed twice: {', '.join(done)}; start from the original model"
        )
    selected = {name: modules[name] for name, rule in chosen.items() if rule}
    check_plain(selected)
    check_supported(selected)
    ties: dict[int, list[str]] = {}
    for name, module in modules.items():
        ties.setdefault(weight_id(module), []).append(name)
    unscaled = [name for name, rule in chosen.items() if rule and rule.leaves_scale]
    norms, refusals = find_norms(model, unscaled)
    problems = [] if skip_misfits else refusals
    layers = []
    for names in ties.values():
        first, rule = names[0], chosen[names[0]]
        problems += [
            f"layer {other!r} must have the rule of {first!r}, because they share one weight"
            for other in names[1:]
            if chosen[other] != rule
        ]
        if rule is None:
            continue
        op = op_of(modules[first])
        weight = modules[first].weight
        assert op is not None and isinstance(weight, Tensor)
        shape = shape_of(weight, op)
        misfits = rule.misfit(op, shape)
        if not skip_misfits:
            problems += [f"layer {first!r}: {p}" for p in misfits]
        if not misfits and (first in norms or first not in unscaled):
            geometry = rule.geometry(first, op, shape)
            tied = tuple(modules[n] for n in names)
            layers.append(Selected(first, rule, geometry, tied, norms.get(first)))
    selection = Selection(layers, [name for name, rule in chosen.items() if rule is None])
    for group in selection.codebook_groups():
        problems += group[0].format.misfit_together([layer.geometry for layer in group])
    if problems:
        raise RecipeError(bulleted("recipe", problems))
    return selection


def check_finite(layers: Iterable[Selected]) -> None:
    """Refuse weights that are not numbers; all of them in one error.

    Raises
    ------
    WeightError
    """
    problems = [
        f"layer {layer.name!r}: weight must be finite, not NaN or infinite"
        for layer in layers
        if not bool(torch.isfinite(layer.weight).all())
    ]
    if problems:
        raise WeightError(bulleted("model", problems))
