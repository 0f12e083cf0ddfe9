"""Cluster the layers of a model and replace their weights by compressed ones."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.container import Geometry, Provenance, account
from vq.container.header import canonical_json
from vq.errors import ConfigError, RecipeError, WeightError, bulleted
from vq.layers import candidates, check_supported, matrix_of, op_of
from vq.model import set_provenance
from vq.parametrizations import parametrization_for
from vq.progress import track
from vq.recipe import Method, Recipe
from vq.version import TOOL

__all__ = ["CompressResult", "LayerResult", "compress_"]


@dataclass(frozen=True)
class LayerResult:
    """How one layer was compressed.

    ``relative_error`` is the squared error of the weight over its squared norm.
    """

    geometry: Geometry
    relative_error: float


@dataclass(frozen=True)
class CompressResult:
    """What :func:`compress_` did, in model order; ``kept`` names the layers left alone."""

    layers: list[LayerResult]
    kept: list[str]

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the compressed layers: codebooks, scales and padding counted."""
        counted = account([layer.geometry for layer in self.layers])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


def compress_(
    model: nn.Module, recipe: Recipe, *, seed: int = 0, progress: bool = True
) -> CompressResult:
    """Compress the layers that ``recipe`` selects, in place.

    Every selected ``module.weight`` becomes a parametrisation whose tensors can be trained
    (:func:`vq.finetune_`, or any loop) and stored without loss (:func:`vq.save`). If anything
    is wrong, the model stays as it was.

    Parameters
    ----------
    model : nn.Module
    recipe : Recipe
    seed : int
        Equal seeds, weights and recipes give equal results.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    RecipeError
        If a pattern matches nothing or a method does not fit its layer.
    UnsupportedLayerError
        If the recipe selects a layer that cannot be compressed.
    WeightError
        If a selected weight holds NaN or infinity.
    ConfigError
        If a selected layer is compressed already.
    """
    modules = dict(candidates(model))
    if "" in modules:
        raise ConfigError("model must contain its layers, not be one; wrap it in nn.Sequential")
    chosen = recipe.resolve(modules)
    selected = {name: m for name, m in chosen.items() if m is not None}
    _check(modules, selected)
    ready, layers = [], []
    for name, method in track(selected.items(), "clustering", enabled=progress):
        module = modules[name]
        op = op_of(module)
        assert op is not None and isinstance(module.weight, Tensor)
        layer_seed = zlib.crc32(f"{seed}/{name}".encode())
        weight = module.weight.detach()
        compressed = parametrization_for(method, weight, op, seed=layer_seed)
        ready.append((module, compressed))
        geometry = compressed.to_layer(name, *compressed.initial).geometry
        decoded = compressed(*compressed.initial)
        layers.append(LayerResult(geometry, _relative_error(weight, decoded)))
    for module, compressed in ready:
        parametrize.register_parametrization(module, "weight", compressed)
    set_provenance(model, Provenance(TOOL, canonical_json(recipe.to_json()), seed))
    return CompressResult(layers, [name for name, m in chosen.items() if m is None])


def _check(modules: dict[str, nn.Module], selected: dict[str, Method]) -> None:
    """Raise for everything that would fail later, before anything is changed."""
    done = [name for name in selected if parametrize.is_parametrized(modules[name], "weight")]
    if done:
        raise ConfigError(
            f"layers must not be compressed twice: {', '.join(done)}; start from the original model"
        )
    check_supported({name: modules[name] for name in selected})
    misfits, broken = [], []
    for name, method in selected.items():
        weight = modules[name].weight
        assert isinstance(weight, Tensor)
        outputs, inputs = matrix_of(weight.detach()).shape
        misfits += [f"layer {name!r}: {p}" for p in method.misfit(outputs, inputs)]
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            broken.append(f"layer {name!r}: weights must be finite, but {bad} are NaN or infinite")
    if misfits:
        raise RecipeError(bulleted("recipe", misfits))
    if broken:
        raise WeightError(bulleted("model", broken))


def _relative_error(original: Tensor, decoded: Tensor) -> float:
    difference = (original.float() - decoded.float()).square().sum()
    return float(difference / original.float().square().sum().clamp_min(1e-30))
