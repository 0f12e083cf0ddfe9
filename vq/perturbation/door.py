"""Let scalar weights learn, block by block, in place."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import nn

from vq import distributed
from vq.activations.tokens import ActivationQuantizer, off
from vq.calibration.batches import Batch, as_it_was, each, fingerprint_of_all
from vq.calibration.lengths import check_length
from vq.calibration.memory import enough_memory
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner
from vq.calibration.survey import survey, without_cache
from vq.calibration.walk import walk
from vq.calibration.whole import whole
from vq.container import Provenance, account
from vq.container.header import canonical_json
from vq.errors import ConfigError, UnsupportedLayerError, bulleted
from vq.formats.model import set_provenance
from vq.formats.remaining import remaining
from vq.learning.checkpoint import StageCheckpoints, digest_of, marks_of
from vq.learning.fitting import BlockPlan, BlockResult
from vq.learning.rates import Rates
from vq.perturbation.composition import Composition
from vq.perturbation.finding import PairResult, warn_of_pairs
from vq.perturbation.work import LearnedLayer, Learner
from vq.progress import bar
from vq.recipe.planning import check_storable
from vq.recipe.recipe import Recipe
from vq.recipe.selection import Selected, check_finite, select
from vq.version import TOOL

__all__ = ["LearnedResult", "Running", "learn_scalars_"]


class Running(TypedDict, total=False):
    """What every method takes beside its own settings, as :func:`learn_scalars_` does."""

    epochs: int
    look_ahead: int
    window: int
    depth_weights: tuple[float, ...]
    held_out: float
    patience: int | None
    checkpoint_dir: str | os.PathLike[str] | None
    resume: bool
    offload: bool
    activations: ActivationQuantizer | None
    seed: int
    progress: bool


@dataclass(frozen=True)
class LearnedResult:
    """What :func:`learn_scalars_` did.

    Attributes
    ----------
    layers : list of LearnedLayer
        In model order.
    kept : list of str
        Layers that were left alone.
    blocks : list of BlockResult
        In the order they run.
    pairs : list of PairResult
        Of the equalisation, if there is one: those that were scaled, and those left out.
    """

    layers: list[LearnedLayer]
    kept: list[str]
    blocks: list[BlockResult]
    pairs: list[PairResult]

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight over the quantised layers: scales, zeros and padding counted."""
        counted = account([layer.geometry for layer in self.layers])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)


@torch.inference_mode(mode=False)
@torch.no_grad()
def learn_scalars_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    composition: Composition,
    *,
    epochs: int = 10,
    look_ahead: int = 0,
    window: int = 1,
    depth_weights: tuple[float, ...] = (),
    held_out: float = 0.125,
    patience: int | None = 4,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    offload: bool = False,
    activations: ActivationQuantizer | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LearnedResult:
    """Train and round the layers that ``recipe`` selects, in place, without labels.

    Blocks are found by running the model. Each learns in turn to give, on what the blocks before it
    give as quantised, what the unquantised model's block gives; the loss is the squared error in
    units of the mean square. What comes before the first block and behind the last is trained, too,
    and a model without blocks as one. All that is not a selected weight stays, batch norms'
    statistics among it, but for gains and biases that an equalisation scales, in blocks; pairs
    that are not exact are left out, with a warning. In the end weights are ordinary ones of int8,
    int4, int3 or int2 layers, as :func:`vq.compress_` leaves them. Roundings that remain in the
    model (:mod:`vq.activations.runtime`) rest where the unquantised one runs.

    A block whose error on the held-out batches has not fallen, or whose loss stops being finite,
    stays as it was rounded at its start; the latter with a warning. Whatever fails, Ctrl-C among
    it, the model stays as it was, and with ``checkpoint_dir`` the same call goes on with
    ``resume``.

    With ``torch.distributed``, every process gives its own batches, learns from as many as the one
    with the fewest, and gradients are averaged.

    Parameters
    ----------
    model : nn.Module
        In float32, bfloat16 or float64.
    batches : iterable of batches
        Inputs, or (inputs, targets), of which targets are ignored; each is an optimiser step.
        Hidden states of all of them are kept. Tokens where a mapping's ``attention_mask`` [B, T] is
        0 do not count.
    recipe : Recipe
        Of int8, int4, int3 and int2.
    composition : Composition
        What learns.
    epochs : int
        Passes over the batches in every block, in an order that is drawn anew; AdamW without decay,
        with a cosine that ends at zero.
    look_ahead : int
        Add the losses behind so many further blocks, which are not quantised yet and stay.
    window : int
        1 or 2. With 2, the weights of a block and of the one behind it learn together, on the loss
        behind the second (with ``look_ahead``, on all it adds); then only the first is fixed, and
        the second goes on from what it had learnt where that is better than its start. Errors are
        those of both.
    depth_weights : tuple of float, optional
        Of the losses behind the block itself and each further one; 1 each if not given.
    held_out : float
        Share of the batches, the last ones, that judge and do not teach; one at least, unless there
        is only one. At 0, all do both.
    patience : int or None
        End a block after so many epochs in a row without a smaller error, and keep its best state;
        None goes on to the end, and keeps that.
    checkpoint_dir : path, optional
        Folder for finished blocks.
    resume : bool
        Take finished blocks from there. On CPU, the result is that of a run without interruption,
        bit for bit.
    offload : bool
        Keep hidden states on the CPU between runs.
    activations : ActivationQuantizer, optional
        What rounds activations in this model; it is off where the unquantised one runs, and
        gradients pass it.
    seed : int
        Of the order of batches; recorded in the file.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    RecipeError
        If the recipe does not fit the model.
    UnsupportedLayerError
        If it selects a layer that cannot be quantised, or another format than the four.
    WeightError
        If a selected weight is not finite, or too large for fp16 scales.
    ConfigError
        If a setting is impossible or does not fit a layer; if an equalisation meets a transform
        that remains in the model; if the data are missing, too long for the model, not finite, or
        do not reach all layers; if there is not enough memory.
    ResumeError
        If the checkpoints belong to another run or are damaged.
    OutputError
        If a checkpoint cannot be written.
    """
    if look_ahead > 0 and not depth_weights:
        depth_weights = (1.0,) * (look_ahead + 1)
    if window not in (1, 2):
        raise ConfigError(f"window must be 1 or 2, not {window!r}")
    ahead = max(look_ahead, window - 1) if look_ahead >= 0 else look_ahead
    plan = BlockPlan(
        epochs, Rates(), ahead, "changed", False, (), seed, held_out, patience, depth_weights
    )
    if resume and checkpoint_dir is None:
        raise ConfigError("checkpoint_dir must be given to resume, not None")
    data = list(each(batches))
    selection = select(model, recipe)
    check_storable(model, selection)
    _check(selection.layers, composition)
    check_length(model, data)
    calibration = fingerprint_of_all(data)
    if distributed.ranks() > 1:
        distributed.require_same("weights to train", digest_of(model))
        distributed.require_same("settings", [repr(plan), repr(composition), window])
    text = canonical_json(recipe.to_json())
    store = None
    if checkpoint_dir is not None:
        marks = marks_of(model) | {
            "recipe": text,
            "method": repr(composition),
            "settings": f"{plan} {window}",
            "data": calibration,
            "activations": repr(activations),
            "processes": str(distributed.ranks()),
        }
        store = StageCheckpoints(checkpoint_dir, marks, resume=resume)
    names = [layer.name for layer in selection.layers]
    with whole(model) as before, as_it_was(model), without_cache(model), enough_memory():
        model.eval()
        with distributed.together(), off(activations):
            seen = survey(model, data, names)
        blocks = [] if seen.chain is None else list(seen.chain.names)
        distributed.require_same("blocks that the data show", blocks)
        stages = stages_of(names, seen)
        runner = Runner(model, data, seen.chain, offload=offload)
        count = sum(bool(stage.layers) for stage in stages)
        with bar("block by block", count, enabled=progress and distributed.is_main()) as advance:
            learner = Learner(
                runner, before, selection.layers, stages, composition, plan, window, activations,
                advance,
            )  # fmt: skip
            walk(stages, learner, learner.streams, store)
    set_provenance(model, Provenance(TOOL, text, seed, calibration))
    layers = [learner.layers[name] for name in names]
    warn_of_pairs(learner.pairs)
    return LearnedResult(layers, selection.kept, learner.blocks, learner.pairs)


def _check(layers: list[Selected], composition: Composition) -> None:
    """Refuse what cannot be done before any work; all of it in one error."""
    if not layers:
        raise ConfigError("recipe must select at least one layer, not none")
    others = [
        f"layer {layer.name!r}: format must be int8, int4, int3 or int2, not "
        f"{layer.format.name!r}; use vq.compress_"
        for layer in layers
        if not layer.format.takes_codes
    ]
    if others:
        raise UnsupportedLayerError(bulleted("recipe", others))
    problems = [
        f"layer {layer.name!r}: {problem}"
        for layer in layers
        for problem in composition.problems(layer.geometry)
    ]
    problems += [
        f"layer {layer.name!r}: weight must not learn in float16, where gradients vanish; train it "
        "after .float() or .bfloat16(), and cast it back"
        for layer in layers
        if layer.weight.dtype == torch.float16
    ]
    problems += _doubled(layers) if composition.equalisation is not None else []
    if problems:
        raise ConfigError(bulleted("method", problems))
    check_finite(layers)


def _doubled(layers: list[Selected]) -> list[str]:
    """What an equalisation says of layers whose inputs a transform scales already."""
    modules = ((layer.name, module) for layer in layers for module in layer.modules)
    found = [name for name, m in modules if any(one.kind == "transform" for one in remaining(m))]
    if not found:
        return []
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return [
        f"equalisation must not come on top of transforms (DuQuant), which scale what {found[0]!r}"
        f"{more} read already, and turn it; leave it out, as lwc and sde do"
    ]
