"""What a recipe would do to a model, known before any work is done."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from vq.clustering.kmeans import ITERATIONS, kmeans
from vq.container import Geometry, LayerAccount, Provenance, account, plan_file
from vq.container.header import canonical_json
from vq.formats.settings import SSVQ, VQ, Int8
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, Selection, select
from vq.storage import dtype_tag, tied_tensors
from vq.version import TOOL

__all__ = ["Plan", "Skipped", "plan"]

_SAMPLE_POINTS = 32_768
_SAMPLE_ITERATIONS = 6
_INT_SECONDS_PER_WEIGHT = 1e-8


@dataclass(frozen=True)
class Skipped:
    """A layer that stays as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Prediction of :func:`plan`.

    Attributes
    ----------
    layers : list of LayerAccount
        Bytes of every layer to compress, in model order; exact.
    skipped : list of Skipped
        Layers with parameters of their own that are stored as they are.
    file_bytes : int
        Exact size of the file that :func:`vq.save` would write.
    kept_bytes : int
        Bytes of the tensors that are stored as they are.
    seconds : float
        Estimated time of clustering on this machine, to about a factor of two.
    memory_bytes : int
        Estimated peak of memory beside the model while clustering, to about a factor of two.
    """

    layers: list[LayerAccount]
    skipped: list[Skipped]
    file_bytes: int
    kept_bytes: int
    seconds: float
    memory_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the compressed layers: codebooks, scales and padding counted."""
        weights = sum(a.geometry.weights for a in self.layers)
        return 8 * sum(a.total_bytes for a in self.layers) / weights if weights else math.nan


def plan(model: nn.Module, recipe: Recipe, *, seed: int = 0) -> Plan:
    """Predict what ``vq.compress_`` and ``vq.save`` would do, from shapes alone.

    The model is not changed and no weight is read, so it may be on the meta device. Time is
    extrapolated from a moment of clustering random data.

    Raises
    ------
    RecipeError, UnsupportedLayerError, ConfigError
        As :func:`vq.compress_` would.
    """
    selection = select(model, recipe)
    geometries = [layer.geometry for layer in selection.layers]
    kept = _kept(model, selection)
    provenance = Provenance(TOOL, canonical_json(recipe.to_json()), seed)
    file = plan_file(geometries, kept, provenance)
    groups = selection.codebook_groups()
    clock = _Clock()
    return Plan(
        layers=account(geometries),
        skipped=_skipped(model, selection),
        file_bytes=file.file_bytes,
        kept_bytes=sum(tensor.nbytes for tensor in file.tensors if tensor.name in kept),
        seconds=sum(clock.seconds(group) for group in groups),
        memory_bytes=max((_memory_bytes(group) for group in groups), default=0),
    )


def _kept(model: nn.Module, selection: Selection) -> dict[str, tuple[str, tuple[int, ...]]]:
    compressed = {id(module.weight) for layer in selection.layers for module in layer.modules}
    return {
        names[0]: (dtype_tag(tensor), tuple(tensor.shape))
        for names, tensor in tied_tensors(model.state_dict(keep_vars=True))
        if id(tensor) not in compressed
    }


def _skipped(model: nn.Module, selection: Selection) -> list[Skipped]:
    selected = {id(module) for layer in selection.layers for module in layer.modules}
    out = []
    for name, module in model.named_modules():
        if id(module) in selected or not any(True for _ in module.parameters(recurse=False)):
            continue
        kept = name in selection.kept
        kind = type(module).__name__
        reason = "kept by the recipe" if kept else f"{kind} holds no weight matrix"
        out.append(Skipped(name or kind, reason))
    return out


class _Clock:
    """Times clustering on random data, once for every kind of codebook."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, bool], tuple[float, float]] = {}

    def seconds(self, group: Sequence[Selected]) -> float:
        """Estimate the time to cluster one codebook."""
        method = group[0].method
        geometries = [layer.geometry for layer in group]
        if not isinstance(method, SSVQ | VQ):
            return _INT_SECONDS_PER_WEIGHT * sum(g.weights for g in geometries)
        points = sum(g.N for g in geometries)
        sample = max(method.k, min(points, _SAMPLE_POINTS))
        key = (method.d, method.k, sample, _weighs_coordinates(geometries))
        if key not in self._known:
            self._known[key] = _measure(*key)
        start, iteration = self._known[key]
        # Measured on Gaussian data: the assignment settles after about 5 sqrt(N / k) iterations.
        iterations = min(ITERATIONS, 5 * math.sqrt(points / method.k))
        return start + iterations * iteration * points / sample


def _measure(d: int, k: int, points: int, weighted: bool) -> tuple[float, float]:
    """Seconds of the start, and of one iteration, on ``points`` random sub-vectors."""
    data = np.abs(np.random.default_rng(0).standard_normal((points, d), np.float32))
    weights = np.ones_like(data) if weighted else None
    # Shortest of several: the first run pays for the libraries' own start, any may be disturbed.
    shortest = {0: math.inf, _SAMPLE_ITERATIONS: math.inf}
    for iterations in 3 * list(shortest):
        begin = time.perf_counter()
        kmeans(data, k, weights=weights, iterations=iterations)
        shortest[iterations] = min(shortest[iterations], time.perf_counter() - begin)
    start, whole = shortest.values()
    return start, max(0.0, whole - start) / _SAMPLE_ITERATIONS


def _memory_bytes(group: Sequence[Selected]) -> int:
    """Estimate the peak of clustering one codebook: copies of its sub-vectors, and the search."""
    geometries = [layer.geometry for layer in group]
    weights = sum(g.N * g.d for g in geometries)
    points = sum(g.N for g in geometries)
    if not isinstance(group[0].method, SSVQ | VQ):
        return (16 if isinstance(group[0].method, Int8) else 28) * weights
    copies = 3 if len(group) == 1 else 4
    if _weighs_coordinates(geometries):
        copies += 5
    clustering = 4 * copies * weights + 32 * points
    # Decoding a layer once, to report its error, holds latents, signs and intermediate weights.
    copies = 8 if isinstance(group[0].method, SSVQ) else 5
    decoding = 4 * copies * max(g.N * g.d for g in geometries)
    return max(clustering, decoding)


def _weighs_coordinates(geometries: Sequence[Geometry]) -> bool:
    """Whether a ragged layer makes the clustering weigh every coordinate."""
    return any(g.N * g.d != g.weights for g in geometries)
