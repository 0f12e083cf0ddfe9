"""Cluster the layers of a model and replace their weights by compressed ones."""

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import Batch, fingerprint, repeatable
from vq.calibration.importance import input_second_moments, squared_gradients
from vq.calibration.norms import reestimate_norms_, warn_of_norms
from vq.calibration.whole import whole
from vq.clustering.cluster import KMeans
from vq.container import Geometry, Provenance, account
from vq.container.header import canonical_json
from vq.errors import ConfigError, WeightError, bulleted
from vq.formats.format import Original
from vq.formats.model import set_provenance
from vq.formats.points import SILENT
from vq.formats.weights import Compressed, attach
from vq.progress import bar, track
from vq.recipe.folding import fold_
from vq.recipe.planning import KEEP_PADDING, check_storable
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, select
from vq.version import TOOL

__all__ = ["CompressResult", "LayerResult", "compress_", "compress_group"]

_NO_DATA = "0" * 64
#: Weights of outputs that are zero and have a scale of their own are smaller (vq.formats.points).
_SILENCE = 2.0**7 * SILENT


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
    model: nn.Module,
    recipe: Recipe,
    *,
    calibration: Iterable[Batch] | None = None,
    importance: str | Mapping[str, Tensor] | None = None,
    loss: Callable[[Any, Any], Tensor] = nn.functional.cross_entropy,
    norms: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> CompressResult:
    """Compress the layers that ``recipe`` selects, in place.

    Every selected ``module.weight`` becomes a parametrisation whose tensors can be trained
    (:func:`vq.finetune_`, or any loop) and stored without loss (:func:`vq.save`). Weights that
    modules share stay shared. Where a norm takes over a layer's scale, that norm and the layer's
    bias change too (:mod:`vq.recipe.folding`). Whatever fails, Ctrl-C among it, the model stays as
    it was.

    Layers are clustered one after another on all cores; beside the model, memory holds a few
    copies of the largest layer (or of the layers that share one codebook).

    Parameters
    ----------
    model : nn.Module
    recipe : Recipe
    calibration : iterable of batches, optional
        Inputs, or (inputs, targets). Iterated more than once; those of a generator are kept.
    importance : "inputs", "gradients" or mapping of layer name to tensor, optional
        How much an error of each weight matters, shaped like the weight. The first two are
        measured on ``calibration`` (:mod:`vq.calibration.importance`). Layers that are
        not named, and all layers by default, weigh their errors alike.
    loss : callable
        ``loss(model(inputs), targets)``, for "gradients".
    norms : bool
        Measure the statistics of batch norms again on ``calibration``, in mean over its batches; a
        warning if there is none. Those that keep no statistics, or with a momentum of 0, stay.
    seed : int
        Equal seeds, weights and recipes give equal results.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    RecipeError
        If a pattern matches nothing, a format does not fit its layer, or no norm takes over its
        scale.
    UnsupportedLayerError
        If the recipe selects a layer that cannot be compressed.
    WeightError
        If a selected weight holds NaN or infinity, or numbers too large for an fp16 group scale.
    ConfigError
        If a selected layer is compressed already or its weight is no plain parameter, the model is
        wrapped or has no values, an importance does not fit its layer, a tensor of the model
        cannot be stored, or the calibration data are missing, empty, not finite or not what the
        model and the loss accept.
    """
    selection = select(model, recipe)
    check_storable(model, selection)
    _check_weights(selection.layers)
    if calibration is not None:
        calibration = repeatable(calibration)
    with whole(model):
        with bar("reading calibration data", None, enabled=progress and calibration is not None):
            data_hash = _NO_DATA if calibration is None else fingerprint(calibration)
            costs = _importance(model, importance, calibration, loss)
        _check_importance(selection.layers, costs)
        ready: dict[str, Compressed] = {}
        errors: dict[str, float] = {}
        for group in track(selection.codebook_groups(), "clustering", enabled=progress):
            for layer, compressed in zip(group, compress_group(group, costs, seed), strict=True):
                ready[layer.name] = compressed
                errors[layer.name] = _relative_error(compressed, layer.weight)
                _warn_of_padding(layer, compressed)
        codebooks: dict[str, nn.Parameter] = {}
        for layer in selection.layers:
            compressed = ready[layer.name]
            scale = compressed.norm_scale()
            if layer.norm is not None and scale is not None:
                fold_(layer.modules[0], layer.norm, scale)
            _replace(layer, compressed, codebooks)
        if calibration is None:
            if norms:
                warn_of_norms(model)
        elif norms:
            with bar("measuring batch norms", None, enabled=progress):
                reestimate_norms_(model, calibration)
        set_provenance(model, Provenance(TOOL, canonical_json(recipe.to_json()), seed, data_hash))
    results = [LayerResult(layer.geometry, errors[layer.name]) for layer in selection.layers]
    return CompressResult(results, selection.kept)


def _importance(
    model: nn.Module,
    importance: str | Mapping[str, Tensor] | None,
    calibration: Iterable[Batch] | None,
    loss: Callable[[Any, Any], Tensor],
) -> Mapping[str, Tensor]:
    if importance is None:
        return {}
    if not isinstance(importance, str):
        return importance
    if importance not in ("inputs", "gradients"):
        raise ConfigError(f"importance must be 'inputs' or 'gradients', not {importance!r}")
    if calibration is None:
        raise ConfigError(f"calibration data must be given to measure importance {importance!r}")
    if importance == "inputs":
        return input_second_moments(model, calibration)
    return squared_gradients(model, calibration, loss=loss)


def compress_group(
    group: list[Selected], importance: Mapping[str, Tensor], seed: int
) -> list[Compressed]:
    """Compress one layer, or the layers that share one codebook, without touching the model."""
    originals = [
        Original(x.geometry, x.weight, importance.get(x.name), x.per_output) for x in group
    ]
    clusterer = KMeans(zlib.crc32(f"{seed}/{group[0].geometry.codebook}".encode()))
    return group[0].format.compress(originals, clusterer)


def _replace(layer: Selected, compressed: Compressed, codebooks: dict[str, nn.Parameter]) -> None:
    """Parametrise the layer's modules: one compressed weight for all that share it."""
    originals: dict[str, nn.Parameter] = {}
    for module in layer.modules:
        if originals:
            compressed.share()
        chain = attach(module, compressed)
        for name, own in list(chain.named_parameters(recurse=False)):
            setattr(chain, name, originals.setdefault(name, own))
        if layer.format.shared is not None:
            name = list(originals)[compressed.roles.index("codebook")]
            originals[name] = codebooks.setdefault(layer.format.shared, originals[name])
            setattr(chain, name, originals[name])


def _relative_error(compressed: Compressed, weight: Tensor) -> float:
    decoded = compressed.approximation(weight).float()
    norm = weight.float().square().sum().clamp_min(1e-30)
    return float((decoded - weight.float()).square().sum() / norm)


def _warn_of_padding(layer: Selected, compressed: Compressed) -> None:
    """Say where the padding of an embedding was zero and is not any more."""
    for row in layer.padding():
        if bool((compressed.approximation(layer.weight)[row].abs() > _SILENCE).any()):
            warnings.warn(
                f"layer {layer.name!r}: row {row}, its padding, was zero and is not any more, as "
                f"no codeword is zero; {KEEP_PADDING}",
                stacklevel=3,
            )


def _check_weights(layers: list[Selected]) -> None:
    broken = []
    for layer in layers:
        bad = int((~torch.isfinite(layer.weight)).sum())
        if bad:
            broken.append(
                f"layer {layer.name!r}: weights must be finite, but {bad} are NaN or infinite"
            )
    if broken:
        raise WeightError(bulleted("model", broken))


def _check_importance(layers: list[Selected], importance: Mapping[str, Tensor]) -> None:
    weights = {layer.name: layer.weight for layer in layers}
    problems = []
    checks: list[tuple[str, Callable[[Tensor], bool]]] = [
        ("finite", lambda t: bool(torch.isfinite(t).all())),
        ("non-negative", lambda t: bool((t >= 0).all())),
    ]
    for name, values in importance.items():
        if name not in weights:
            continue  # calibration may cover layers that the recipe keeps
        if values.shape != weights[name].shape:
            problems.append(
                f"layer {name!r}: importance must have shape {tuple(weights[name].shape)}, "
                f"not {tuple(values.shape)}"
            )
            continue
        problems += [
            f"layer {name!r}: importance must be {r}" for r, ok in checks if not ok(values)
        ]
    if problems:
        raise ConfigError(bulleted("importance", problems))
