"""Quantise a whole model on calibration data, block by block, in place."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from rescomp.checks import check_method
from rescomp.codebooks.layers import CodebookSolver, can_hold, importance_of, is_coded, problems_of
from rescomp.codebooks.settings import Fitting
from rescomp.methods import RTN, Method
from rescomp.resume import fingerprint_of
from rescomp.settings import Settings
from rescomp.tuning import Tuning
from rescomp.worker import LayerReport, LayersDone, Worker
from vq.activations.tokens import ActivationQuantizer, off
from vq.calibration.batches import Batch, as_it_was, each, fingerprint, fingerprint_of_all
from vq.calibration.lengths import check_length
from vq.calibration.memory import enough_memory
from vq.calibration.norms import Norms, run_on, warn_of_norms
from vq.calibration.stages import Stage, stages_of
from vq.calibration.streams import Runner
from vq.calibration.survey import survey, without_cache
from vq.calibration.walk import walk
from vq.calibration.whole import whole
from vq.container import Provenance, account
from vq.container.header import canonical_json
from vq.distributed import gather, require_same, together
from vq.errors import ConfigError, UnsupportedLayerError, bulleted
from vq.formats.format import Format
from vq.formats.model import set_provenance
from vq.formats.scalar import Int2, Int3, Int4, Int8
from vq.layers import candidates, op_of, weight_id
from vq.learning.checkpoint import StageCheckpoints
from vq.learning.fitting import BlockResult
from vq.recipe.plain import check_bare
from vq.recipe.planning import check_storable
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, check_finite, select
from vq.version import TOOL

__all__ = ["QuantizeResult", "default_recipe", "quantize_"]

_KINDS = {2: Int2, 3: Int3, 4: Int4}


@dataclass(frozen=True)
class QuantizeResult:
    """What :func:`quantize_` did.

    Attributes
    ----------
    layers : list of LayerReport
        In model order. Their errors are those before tuning.
    kept : list of str
        Layers that were left alone.
    blocks : list of BlockResult
        Those that were tuned, in the order they run.
    """

    layers: list[LayerReport]
    kept: list[str]
    blocks: list[BlockResult] = field(default_factory=list)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the quantised layers: scales, zeros and padding counted."""
        counted = account([layer.geometry for layer in self.layers])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


def default_recipe(
    model: nn.Module, bits: int | Format, *, group: int = 128, zeros: bool = False
) -> Recipe:
    """All linears and convolutions in so many bits; embeddings and what is tied to them kept.

    The output layer of a model of transformers is kept, too.

    Parameters
    ----------
    bits : int or Format
        2, 3, 4 or 8; or what all of these layers are stored in, but for those whose outputs do not
        see the same inputs, as in depthwise convolutions: no codebook can be compensated there, and
        they become int8.
    group, zeros
        As in :class:`vq.Int4`.

    Raises
    ------
    ConfigError
        If ``bits`` is not 2, 3, 4 or 8, the model has no such layer, or it is wrapped.
    """
    check_bare(model)
    if isinstance(bits, Format):
        kind = bits
    elif bits != 8 and bits not in _KINDS:
        raise ConfigError(f"bits must be 2, 3, 4 or 8, not {bits!r}")
    else:
        kind = Int8() if bits == 8 else _KINDS[bits](group=group, zeros=zeros)
    layers = {n: m for n, m in candidates(model) if op_of(m) is not None}
    embedded = {weight_id(m) for m in layers.values() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    chosen = [
        name
        for name, module in layers.items()
        if weight_id(module) not in embedded and module is not head
    ]
    if not chosen:
        raise ConfigError("model must hold a linear layer or a convolution, not none")
    return Recipe({name: kind if can_hold(kind, layers[name]) else Int8() for name in chosen})


@torch.inference_mode(mode=False)
@torch.no_grad()
def quantize_(
    model: nn.Module,
    batches: Iterable[Batch] | None,
    recipe: Recipe | int,
    method: Method | None = None,
    *,
    settings: Settings | None = None,
    fitting: Fitting | None = None,
    importance: Mapping[str, Tensor] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    offload: bool = False,
    activations: ActivationQuantizer | None = None,
    norms: bool = True,
    tuning: Tuning | None = None,
    seed: int = 0,
    progress: LayersDone | None = None,
) -> QuantizeResult:
    """Quantise the layers that ``recipe`` selects, in place.

    Blocks are found by running the model and quantised in turn. Within a block, layers are taken
    in the order they run, those with one input together. Statistics come from two models side by
    side: one with the weights quantised so far and, where the method or the report needs it, the
    unquantised one. Weights end as :func:`vq.compress_` leaves those of int4 layers, so that all
    that follows is the same. Embeddings are rounded to nearest.

    With ``torch.distributed``, every process gives its own batches; statistics are summed, layers
    shared out, and all end with the same model.

    Whatever fails, Ctrl-C among it, the model stays as it was, and with ``checkpoint_dir`` the same
    call goes on with ``resume``. Until the end, the unquantised weights of finished blocks are
    in a temporary file.

    A layer that tokens reach at first, but not once others are rounded (an expert), is rounded to
    nearest, with a warning that names it.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of batches or None
        Inputs, or (inputs, targets); inputs are a tensor, a tuple or a mapping. Tokens where a
        mapping's ``attention_mask`` [B, T] is 0 do not count. Rounding to nearest only measures
        with them, and needs none.
    recipe : Recipe or int
        Of int8, int4, int3, int2, ssvq and vq; a number of bits is :func:`default_recipe`.
        Codewords are chosen by groups of columns, with the same corrections; layers that share a
        codebook (``shared``) and their inputs are solved as one, and a codebook that layers with
        other inputs share is clustered beforehand.
    method : Method, optional
        One of :mod:`rescomp.methods`; round to nearest if not given.
    settings : Settings, optional
        ``dtype`` is that of the statistics, too.
    fitting : Fitting, optional
        Of the codebooks, where the recipe has some.
    importance : mapping of layer name to [O], optional
        How much an error of every output matters to the codebooks, as
        :func:`vq.calibration.importance.output_gradients` measures it; layers that are not named
        matter like the mean of those with the same codebook.
    checkpoint_dir : path, optional
        Folder for finished blocks.
    resume : bool
        Take finished blocks from there. The result is that of a run without interruption.
    offload : bool
        Keep hidden states on the CPU between blocks.
    activations : ActivationQuantizer, optional
        What rounds activations in this model; it is off where the unquantised one runs.
    norms : bool
        Measure the statistics of batch norms again, after every layer for those behind it and in
        the end for all, in mean over the batches; a warning if there are none. Norms that keep no
        statistics, or with a momentum of 0, stay.
    tuning : Tuning, optional
        Train the codebooks, signs, scales, norms and biases of every block against what the
        unquantised block gives, as soon as its layers are solved; a model without blocks is
        one. A block whose error on held-out batches does not fall stays as it was.
    seed : int
        Of the clustering of codebooks, and of the order of batches in tuning; recorded in the file.
        Nothing else is random.
    progress : callable, optional
        Called with (layers done, layers in all, name of the last one).

    Raises
    ------
    RecipeError
        If the recipe does not fit the model.
    UnsupportedLayerError
        If it selects a layer that cannot be quantised, or another format than the four.
    WeightError
        If a selected weight is not finite.
    ConfigError
        If the data are missing, too long for the model, not finite, or do not reach all layers;
        if activations are not finite; if there is not enough memory; if blocks are to be tuned
        without a method that compensates.
    TrainingError
        If the loss stops being finite while a block is tuned.
    ResumeError
        If the checkpoints belong to another run or are damaged.
    OutputError
        If a checkpoint cannot be written.
    """
    method, settings, fitting = method or RTN(), settings or Settings(), fitting or Fitting()
    check_method(method)
    solves = method.correction() is not None
    _check_tuning(tuning, method)
    plan = None if tuning is None else tuning.plan(seed)
    given = () if batches is None else batches
    data = list(each(given)) if solves else list(given)
    if resume and checkpoint_dir is None:
        raise ConfigError("checkpoint_dir must be given to resume, not None")
    rules = recipe if isinstance(recipe, Recipe) else default_recipe(model, recipe)
    selection = select(model, rules)
    check_storable(model, selection)
    _check(selection.layers, method)
    weighed = importance_of(selection.layers, importance or {})
    check_length(model, data)
    any_data = any(gather(bool(data)))
    calibration = fingerprint_of_all(data) if any_data else Provenance().calibration
    store = None
    if checkpoint_dir is not None:
        marks = fingerprint_of(model, calibration, rules, method, settings, fitting, seed)
        marks |= {"activations": repr(activations), "norms": str(norms), "tuning": repr(plan)}
        marks["importance"] = fingerprint([weighed]) if weighed else "equal"
        store = StageCheckpoints(checkpoint_dir, marks, resume=resume)
    names = [layer.name for layer in selection.layers]
    stages, runner = [Stage("model", tuple(names))], None
    with whole(model) as before, as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        if solves or (settings.measure and data):
            with together(), off(activations):
                seen = survey(model, data, names, all_run=solves)
            blocks = [] if seen.chain is None else list(seen.chain.names)
            require_same("blocks that the data show", blocks)
            stages, runner = (
                stages_of(names, seen),
                Runner(model, data, seen.chain, offload=offload),
            )
        codebooks = CodebookSolver(selection.layers, settings, fitting, weighed, seed)
        found = Norms(model) if norms and data else None
        worker = Worker(
            runner, before, selection.layers, method, settings, codebooks, found, activations,
            plan, progress,
        )  # fmt: skip
        walk(stages, worker, worker.streams, store)
        if found is not None and len(found):
            found.measure_(partial(run_on, model, data), shared=True)
        elif norms:
            warn_of_norms(model, stacklevel=4)
    set_provenance(model, Provenance(TOOL, canonical_json(rules.to_json()), seed, calibration))
    reports = [worker.reports[layer.name] for layer in selection.layers]
    return QuantizeResult(reports, selection.kept, worker.blocks)


def _check_tuning(tuning: Tuning | None, method: Method) -> None:
    if tuning is not None and method.correction() is None:
        raise ConfigError(
            f"tuning must come with a method that compensates, not {method.name}; use "
            "vq.compress_ and vq.finetune_blocks_"
        )


def _check(layers: list[Selected], method: Method) -> None:
    """Refuse what cannot be quantised before any work; all of it in one error."""
    if not layers:
        raise ConfigError("recipe must select at least one layer, not none")
    others = [
        f"layer {layer.name!r}: format must be int8, int4, int3, int2, ssvq or vq, not "
        f"{layer.format.name!r}; use vq.compress_"
        for layer in layers
        if not (layer.format.takes_codes or is_coded(layer))
    ]
    others += [
        f"layer {layer.name!r}: {problem}"
        for layer in filter(is_coded, layers)
        for problem in problems_of(layer, method)
    ]
    if others:
        raise UnsupportedLayerError(bulleted("recipe", others))
    check_finite(layers)
