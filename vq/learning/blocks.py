"""Fine-tune a compressed model block by block against the model that it was made from.

Every block learns by itself to give what the unquantised model's block gives, so that memory holds
the activations of one block, and no targets are needed. It knows neither formats nor methods:
whatever is trainable in a block learns, at the rates of :mod:`vq.learning.rates`, under the rules
that it is given.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from vq import distributed
from vq.calibration.batches import Batch, as_it_was, each, fingerprint_of_all
from vq.calibration.memory import enough_memory
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.survey import Survey, survey, without_cache
from vq.calibration.walk import walk
from vq.calibration.whole import whole
from vq.errors import ConfigError, TrainingError, bulleted
from vq.formats.model import compressed_layers
from vq.learning.checkpoint import StageCheckpoints, digest_of, marks_of
from vq.learning.checks import check_models
from vq.learning.fitting import BlockPlan, BlockResult, Fitter
from vq.learning.rates import Rates
from vq.learning.rules.rule import RuleSettings
from vq.progress import bar
from vq.recipe.folding import find_norms
from vq.recipe.plain import check_bare

__all__ = ["BlocksResult", "finetune_blocks_"]


@dataclass
class BlocksResult:
    """Record of a run.

    Attributes
    ----------
    blocks : list of BlockResult
        Blocks that hold compressed layers, in the order they run.
    settings : dict
        Everything the run was asked to do, as plain data.
    """

    blocks: list[BlockResult] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a run record."""
        return asdict(self)


@torch.inference_mode(mode=False)
@torch.no_grad()
def finetune_blocks_(
    model: nn.Module,
    batches: Iterable[Batch],
    teacher: nn.Module,
    *,
    epochs: int = 10,
    rates: Rates | None = None,
    look_ahead: int = 0,
    inputs: str = "changed",
    fixed_signs: bool = False,
    rules: Sequence[RuleSettings] = (),
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    offload: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> BlocksResult:
    """Train each block of a compressed model to give what the teacher's gives, in place.

    Blocks are found by running the model, and trained in turn; what comes before the first and
    behind the last is, too, in its compressed layers. The loss is the mean squared error of the
    block's output in units of the mean square of the teacher's. Both models are in evaluation
    mode, so that dropout rests and batch norms keep their statistics. A block whose error has not
    fallen in the end stays as it was, as does one in which anything fails, and so do tensors that
    several blocks share.

    With ``torch.distributed``, every process gives its own batches, equally many, and gradients
    are averaged.

    Parameters
    ----------
    model : nn.Module
        Compressed by :func:`vq.compress_`.
    batches : iterable of batches
        Inputs, or (inputs, targets), of which targets are ignored. Hidden states of all of them
        are kept. Tokens where a mapping's ``attention_mask`` [B, T] is 0 do not count.
    teacher : nn.Module
        The model before compression.
    epochs : int
        Passes over the batches in every block, each batch an optimiser step, in an order that is
        drawn anew; Adam, with a cosine that ends at zero in every block.
    rates : Rates, optional
        ``alpha`` is of no effect.
    look_ahead : int
        Measure a block's loss behind so many further blocks, which do not learn yet.
    inputs : "changed" or "teacher"
        Whether a block learns on what the model trained so far gives it, or the teacher.
    fixed_signs : bool
        Keep every sign as it is.
    rules : sequence of RuleSettings
        Rules of training (:mod:`vq.learning.rules.rule`), started anew in every block.
    checkpoint_dir : path, optional
        Folder for finished blocks.
    resume : bool
        Take finished blocks from there. On CPU, the result is that of a run without interruption,
        bit for bit.
    offload : bool
        Keep hidden states on the CPU between runs.
    seed : int
        Of the order of batches.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If a setting is impossible, the models do not have the same blocks, the data are missing or
        not finite, do not reach all compressed layers, or do not fit into memory; if the norm that
        took over a layer's scale lies in another block.
    ResumeError
        If the checkpoints belong to another run or are damaged.
    TrainingError
        If the loss stops being finite.
    OutputError
        If a checkpoint cannot be written.
    """
    rates = replace(rates or Rates(), alpha=1.0)  # nobody scales latents here
    plan = BlockPlan(epochs, rates, look_ahead, inputs, fixed_signs, tuple(rules), seed)
    check_models(model, teacher)
    if resume and checkpoint_dir is None:
        raise ConfigError("checkpoint_dir must be given to resume, not None")
    data = list(each(batches))
    data_hash = fingerprint_of_all(data)
    if distributed.ranks() > 1:
        distributed.require_same("weights to train", digest_of(model))
        distributed.require_same("settings and the number of batches", [repr(plan), len(data)])
    store = None
    if checkpoint_dir is not None:
        marks = marks_of(model) | {
            "teacher": digest_of(teacher),
            "data": data_hash,
            "settings": repr(plan),
            "processes": str(distributed.ranks()),
        }
        store = StageCheckpoints(checkpoint_dir, marks, resume=resume)
    names = [layer.name for layer in compressed_layers(model)]
    with ExitStack() as stack:
        stack.enter_context(whole(model, trained=True, but=(TrainingError,)))
        for one in (model, teacher):
            stack.enter_context(as_it_was(one))
            stack.enter_context(without_cache(one))
            one.eval()
        with distributed.together(), enough_memory():
            check_bare(model)
            check_bare(teacher)
            seen, plain = (survey(one, data, names) for one in (model, teacher))
        blocks = _blocks(seen)
        distributed.require_same("blocks that the data show", blocks)
        if blocks != _blocks(plain):
            raise ConfigError(
                f"teacher must have the model's blocks {_few(blocks)}, not {_few(_blocks(plain))}; "
                "give the model before vq.compress_"
            )
        _check_norms(model, teacher, blocks)
        streams = Streams(
            Stream(Runner(model, data, seen.chain, offload=offload)),
            Stream(Runner(teacher, data, plain.chain, offload=offload)),
        )
        stages = stages_of(names, seen)
        count = sum(bool(stage.layers) for stage in stages)
        with bar("block by block", count, enabled=progress and distributed.is_main()) as advance:
            fitter = Fitter(streams, plan, advance)
            with enough_memory():
                walk(stages, fitter, streams, store)
    settings = asdict(plan) | {"rules": [repr(rule) for rule in rules]}
    return BlocksResult(fitter.results, settings | {"processes": distributed.ranks()})


def _check_norms(model: nn.Module, teacher: nn.Module, blocks: list[str]) -> None:
    """Refuse layers whose outputs leave their block before a norm has undone their size."""
    unscaled = [x.name for x in compressed_layers(model) if not x.weight.geometry.scales]
    norms, _ = find_norms(teacher, unscaled)
    names = {id(module): name for name, module in teacher.named_modules()}

    def block_of(name: str) -> str | None:
        return next((block for block in blocks if f"{name}.".startswith(f"{block}.")), None)

    problems = [
        f"layer {name!r}: the norm that took over its scale must lie in the same block; compress "
        "it with scale 'layer' or 'output'"
        for name in unscaled
        if name not in norms or block_of(name) != block_of(names[id(norms[name])])
    ]
    if problems:
        raise ConfigError(bulleted("model to train block by block", problems))


def _blocks(seen: Survey) -> list[str]:
    return [] if seen.chain is None else list(seen.chain.names)


def _few(blocks: list[str]) -> str:
    """A short text about blocks."""
    return f"{blocks[0]!r} to {blocks[-1]!r} ({len(blocks)})" if blocks else "(none)"
