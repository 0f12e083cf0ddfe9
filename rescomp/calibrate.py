"""Quantise a whole model on calibration data, block by block, in place."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rescomp.apply import replace_weight
from rescomp.checks import check_method
from rescomp.methods import RTN, Method
from rescomp.quantize import Quantized, Report, quantize_matrix
from rescomp.resume import Saved, fingerprint_of
from rescomp.settings import Settings
from vq.activations.tokens import ActivationQuantizer
from vq.calibration.batches import Batch, as_it_was, fingerprint, split
from vq.calibration.gathering import Gatherer, Group, is_looked_up
from vq.calibration.memory import enough_memory
from vq.calibration.statistics import Statistics
from vq.calibration.streams import Boundary, Runner, Stage, Weights, stages_of
from vq.calibration.survey import survey, without_cache
from vq.container import Geometry, Provenance, account
from vq.container.header import canonical_json
from vq.distributed import gather, is_main, rank, ranks, require_same, together
from vq.errors import ConfigError, UnsupportedLayerError, WeightError, bulleted
from vq.formats.clip import part_of
from vq.formats.grids import Grid
from vq.formats.model import set_provenance
from vq.formats.settings import Int2, Int3, Int4, Int8
from vq.layers import candidates, matrix_of, op_of, weight_of
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, select
from vq.version import TOOL

__all__ = ["LayerReport", "Progress", "QuantizeResult", "default_recipe", "quantize_"]

_KINDS = {2: Int2, 3: Int3, 4: Int4}

Progress = Callable[[int, int, str], None]
"""Called with layers done, layers in all, and the name of the last one."""


@dataclass(frozen=True)
class LayerReport:
    """How one layer went.

    Attributes
    ----------
    geometry : Geometry
    method : str
        What chose its codes: "rtn" for embeddings, whose rows no input mixes.
    report : Report
        Of a convolution in groups: sums of the errors, the greatest damping.
    """

    geometry: Geometry
    method: str
    report: Report


@dataclass(frozen=True)
class QuantizeResult:
    """What :func:`quantize_` did, in model order; ``kept`` names the layers left alone."""

    layers: list[LayerReport]
    kept: list[str]

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the quantised layers: scales, zeros and padding counted."""
        counted = account([layer.geometry for layer in self.layers])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


def default_recipe(model: nn.Module, bits: int, *, group: int = 128, zeros: bool = False) -> Recipe:
    """All linears and convolutions in ``bits`` bits; embeddings and what is tied to them kept.

    The output layer of a model of transformers is kept, too.

    Raises
    ------
    ConfigError
        If ``bits`` is not 2, 3, 4 or 8, or the model has no such layer.
    """
    if bits != 8 and bits not in _KINDS:
        raise ConfigError(f"bits must be 2, 3, 4 or 8, not {bits!r}")
    method: Any = Int8() if bits == 8 else _KINDS[bits](group=group, zeros=zeros)
    layers = {n: m for n, m in candidates(model) if op_of(m) is not None}
    embedded = {id(m.weight) for m in layers.values() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    chosen = [
        name
        for name, module in layers.items()
        if id(module.weight) not in embedded and module is not head
    ]
    if not chosen:
        raise ConfigError("model must hold a linear layer or a convolution, not none")
    return Recipe(dict.fromkeys(chosen, method))


@torch.inference_mode(mode=False)
@torch.no_grad()
def quantize_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe | int,
    method: Method | None = None,
    *,
    settings: Settings | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    offload: bool = False,
    activations: ActivationQuantizer | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Quantise the layers that ``recipe`` selects, in place.

    Blocks are found by running the model and quantised in turn. Within a block, layers are taken
    in the order they run, those with one input together. Statistics come from two models side by
    side: one with the weights quantised so far and, where the method or the report needs it, the
    unquantised one. Weights end as :func:`vq.compress_` leaves those of int4 layers, so that all
    that follows is the same. Embeddings are rounded to nearest.

    With ``torch.distributed``, every process gives its own batches; statistics are summed, layers
    shared out, and all end with the same model.

    If it fails on the way, layers that are done stay quantised: load the model anew, and continue
    with ``resume``.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of batches
        Inputs, or (inputs, targets); inputs are a tensor, a tuple or a mapping. Tokens where a
        mapping's ``attention_mask`` [B, T] is 0 do not count.
    recipe : Recipe or int
        Of int8, int4, int3 and int2; a number of bits is :func:`default_recipe`.
    method : Method, optional
        One of :mod:`rescomp.methods`; round to nearest if not given.
    settings : Settings, optional
        ``dtype`` is that of the statistics, too.
    checkpoint_dir : path, optional
        Folder for finished blocks.
    resume : bool
        Take finished blocks from there. The result is that of a run without interruption.
    offload : bool
        Keep hidden states on the CPU between blocks.
    activations : ActivationQuantizer, optional
        What rounds activations in this model; it is off where the unquantised one runs.
    seed : int
        Recorded in the file. Nothing here is random.
    progress : callable, optional
        Called with (layers done, layers in all, name of the last one).

    Raises
    ------
    RecipeError
        If the recipe does not fit the model.
    UnsupportedLayerError
        If it selects a layer that cannot be quantised, or another method than the four.
    WeightError
        If a selected weight is not finite.
    ConfigError
        If the data are missing, too long for the model, not finite, or do not reach all layers;
        if activations are not finite; if there is not enough memory.
    ResumeError
        If the checkpoints belong to another run or are damaged.
    OutputError
        If a checkpoint cannot be written.
    """
    method, settings, data = method or RTN(), settings or Settings(), list(batches)
    check_method(method)
    if resume and checkpoint_dir is None:
        raise ConfigError("checkpoint_dir must be given to resume, not None")
    rules = recipe if isinstance(recipe, Recipe) else default_recipe(model, recipe)
    selection = select(model, rules)
    _check(selection.layers)
    _check_length(model, data)
    with together():
        data_hash = fingerprint(split(batch)[0] for batch in data)
    hashes = gather(data_hash)
    joined = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    calibration = data_hash if len(hashes) == 1 else joined
    marks = {}
    if checkpoint_dir is not None:
        marks = fingerprint_of(model, calibration, rules, method, settings)
        marks["activations"] = repr(activations)
    saved = Saved(checkpoint_dir, marks, resume=resume)
    with as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        with together(), _off(activations)():
            seen = survey(model, data, [layer.name for layer in selection.layers])
        blocks = [] if seen.chain is None else list(seen.chain.names)
        require_same("blocks that the data show", blocks)
        place = {name: i for i, name in enumerate(seen.order)}
        ordered = sorted(selection.layers, key=lambda layer: place[layer.name])
        stages = stages_of(ordered, seen)
        runner = Runner(model, data, seen.chain, offload=offload)
        found = _Run(runner, stages, method, settings, activations, saved, progress).all_stages()
    set_provenance(model, Provenance(TOOL, canonical_json(rules.to_json()), seed, calibration))
    reports = [found[layer.name] for layer in selection.layers]
    return QuantizeResult(reports, selection.kept)


def _off(activations: ActivationQuantizer | None) -> Callable[[], AbstractContextManager[Any]]:
    """What gives a context in which activations are not rounded."""
    return nullcontext if activations is None else activations.off


class _Run:
    """One call of :func:`quantize_`."""

    def __init__(
        self,
        runner: Runner,
        stages: list[Stage],
        method: Method,
        settings: Settings,
        activations: ActivationQuantizer | None,
        saved: Saved,
        progress: Progress | None,
    ) -> None:
        self.runner, self.stages, self.saved = runner, stages, saved
        self.method, self.settings, self.progress = method, settings, progress
        self.activations = activations
        rule = method.rule()
        #: Whether inputs matter at all, and whether those of the unquantised model do.
        self.gathers = rule is not None or settings.measure
        compares = settings.measure or (rule is not None and rule.cross)
        self.gatherer = Gatherer(runner, _off(activations), compares, settings.dtype)
        self.count = sum(len(stage.layers) for stage in stages)
        self.found: dict[str, Quantized] = {}
        self.reports: dict[str, LayerReport] = {}

    def all_stages(self) -> dict[str, LayerReport]:
        """Quantise every stage, and move both models on to the next."""
        plain: Boundary | None = None  # of the unquantised model
        quantised: Boundary | None = None
        last = max(i for i, stage in enumerate(self.stages) if stage.layers)
        for i, stage in enumerate(self.stages[: last + 1]):
            weights = Weights(stage.layers)
            starts, onward = stage.name == "start", self.gathers and i < last
            if starts and onward and self.gatherer.compares:
                with together(), self.gatherer.unquantised(weights):
                    plain = self.runner.boundary()
            if stage.layers:
                self._quantise(i, stage, weights, plain, quantised)
            with together():
                if starts and onward:
                    if plain is None or stage.layers or self.activations is not None:
                        quantised = self.runner.boundary()
                    else:  # nothing before the blocks differs
                        quantised = Boundary(plain.hidden[:], plain.contexts)
                elif onward and quantised is not None:
                    if plain is not None:
                        with self.gatherer.unquantised(weights):
                            self.runner.advance(stage, plain)
                    self.runner.advance(stage, quantised)
            for layer in stage.layers:
                replace_weight(layer.modules, self.found.pop(layer.name))
        return self.reports

    def _quantise(
        self,
        number: int,
        stage: Stage,
        weights: Weights,
        plain: Boundary | None,
        quantised: Boundary | None,
    ) -> None:
        """Choose the codes of a stage's layers and use them from then on."""
        with together():
            stored = self.saved.load(number, {x.name: x.geometry for x in stage.layers})
        if stored is not None:
            self._use(stage, weights, stored)
            return
        groups: list[Group] = []
        if self.gathers:
            with together():
                groups = self.gatherer.groups(stage, quantised)
        require_same("layers by input", [[x.name for x in group.layers] for group in groups])
        grouped = {layer.name for group in groups for layer in group.layers}
        alone = [layer for layer in stage.layers if layer.name not in grouped]
        self._use(stage, weights, self._solve(alone, weights, None))
        for group in groups:
            statistics = self.gatherer.gather(stage, group, weights, plain, quantised)
            self._use(stage, weights, self._solve(group.layers, weights, statistics))
        with together():
            self.saved.save(number, {layer.name: self.found[layer.name] for layer in stage.layers})

    def _solve(
        self, layers: list[Selected], weights: Weights, statistics: list[Statistics] | None
    ) -> dict[str, Quantized]:
        """Quantise layers that share their inputs; every process does some of them."""
        own: dict[str, Quantized] = {}
        with together():
            for layer in layers[rank() :: ranks()]:
                g, original = layer.geometry, weights.original(layer.name)
                matrix = matrix_of(original, g.op, g.axis).float()
                method = RTN() if is_looked_up(layer) else self.method
                own[layer.name] = _quantize_parts(matrix, g, method, statistics, self.settings)
        if ranks() == 1:
            return own
        return {name: one for part in gather(own) for name, one in part.items()}

    def _use(self, stage: Stage, weights: Weights, found: dict[str, Quantized]) -> None:
        layers = {layer.name: layer for layer in stage.layers}
        for name in (name for name in layers if name in found):
            one, original = found[name], weights.original(name)
            g = one.geometry
            decoded = weight_of(one.weight, g.shape, g.op, g.axis)
            weights.put(name, decoded.to(original.device, original.dtype).contiguous())
            self.found[name] = one
            method = RTN.name if is_looked_up(layers[name]) else self.method.name
            self.reports[name] = LayerReport(g, method, one.report)
            if self.progress is not None and is_main():
                self.progress(len(self.reports), self.count, name)


def _quantize_parts(
    matrix: Tensor,
    g: Geometry,
    method: Method,
    statistics: list[Statistics] | None,
    settings: Settings,
) -> Quantized:
    """Quantise a weight [O, I] whose outputs see inputs of their own in each of its parts."""
    if statistics is None or len(statistics) == 1:
        whole = None if statistics is None else statistics[0]
        return _on_cpu(quantize_matrix(matrix, g, method, whole, settings))
    rows = g.O // len(statistics)
    part = replace(part_of(g, (rows, g.I), g.group), name=g.name)
    found = [
        quantize_matrix(weight, part, method, sums, settings)
        for weight, sums in zip(torch.split(matrix, rows), statistics, strict=True)
    ]
    zeros = [one.grid.zero for one in found if one.grid.zero is not None]
    grid = Grid(torch.cat([one.grid.scale for one in found]), torch.cat(zeros) if zeros else None)
    reports = [one.report for one in found]
    errors = [r.error for r in reports if r.error is not None]
    asymmetric = [r.asymmetric_error for r in reports if r.asymmetric_error is not None]
    report = Report(
        max(r.damping for r in reports),
        sum(r.dead_columns for r in reports),
        reports[0].tokens,
        sum(errors) if errors else None,
        sum(asymmetric) if asymmetric else None,
    )
    return _on_cpu(Quantized(g, torch.cat([one.integers for one in found]), grid, report))


def _on_cpu(found: Quantized) -> Quantized:
    zero = found.grid.zero
    grid = Grid(found.grid.scale.cpu(), None if zero is None else zero.cpu())
    return Quantized(found.geometry, found.integers.cpu(), grid, found.report)


def _check(layers: list[Selected]) -> None:
    """Refuse what cannot be quantised before any work; all of it in one error."""
    if not layers:
        raise ConfigError("recipe must select at least one layer, not none")
    others = [
        f"layer {layer.name!r}: method must be int8, int4, int3 or int2, not "
        f"{layer.method.name!r}; use vq.compress_"
        for layer in layers
        if not isinstance(layer.method, Int8 | Int4 | Int3 | Int2)
    ]
    if others:
        raise UnsupportedLayerError(bulleted("recipe", others))
    broken = [
        f"layer {layer.name!r}: weight must be finite, not NaN or infinite"
        for layer in layers
        if not bool(torch.isfinite(layer.weight).all())
    ]
    if broken:
        raise WeightError(bulleted("model", broken))


def _check_length(model: nn.Module, batches: list[Batch]) -> None:
    """Refuse sequences longer than a model of transformers allows."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return
    for batch in batches:
        inputs, _ = split(batch)
        tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
        if isinstance(tokens, tuple) and tokens:
            tokens = tokens[0]
        if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.ndim != 2:
            continue
        if tokens.shape[1] > limit:
            raise ConfigError(
                f"calibration sequences must be at most the model's {limit} tokens long, "
                f"not {tokens.shape[1]}"
            )
