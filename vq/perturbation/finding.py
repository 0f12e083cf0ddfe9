"""Which pairs of a stage are exact, and what their inputs reach."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import tensors_of
from vq.calibration.inputs import rows_of
from vq.calibration.stages import Stage, own_parameters
from vq.calibration.streams import Stream
from vq.calibration.weights import Weights
from vq.distributed import gather, is_main, together
from vq.formats.remaining import remaining
from vq.layers import op_of
from vq.perturbation.equivalence import Equivalences, Range
from vq.perturbation.pairs import Heard, Pair, proposals
from vq.recipe.selection import Selected

__all__ = ["Finder", "PairResult", "warn_of_pairs"]

#: Most that may be left of what one side alone would change, for a pair to be exact.
_LEFT = 3e-3
_LINEAR = ("linear", "linear_t")


@dataclass(frozen=True)
class PairResult:
    """A pair that was found, or was not.

    Attributes
    ----------
    block : str
    name : str
        Without that of the block.
    trained : int
        Numbers that learnt; 0 of a pair that was left out.
    reason : str or None
        Why it was left out.
    """

    block: str
    name: str
    trained: int = 0
    reason: str | None = None


def warn_of_pairs(results: Sequence[PairResult]) -> None:
    """Name pairs that were left out, each once with the blocks that it was left out of."""
    blocks: dict[tuple[str, str], list[str]] = {}
    for one in results:
        if one.reason is not None:
            blocks.setdefault((one.name, one.reason), []).append(one.block)
    if not blocks or not is_main():
        return
    lines = []
    for (name, reason), names in blocks.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{name}, in {names[0]!r}{more}: {reason}")
    listed = "".join(f"\n- {line}" for line in lines)
    warnings.warn(f"equalisation left out what is not exact:{listed}", stacklevel=3)


class Finder:
    """Finds the pairs of one stage after the other.

    Parameters
    ----------
    stream : Stream
        The model as changed so far; a stage that is asked about is still as it was.
    layers : mapping of name to Selected
        All that are quantised.
    """

    def __init__(self, stream: Stream, layers: Mapping[str, Selected]) -> None:
        self._stream, self._layers = stream, layers
        self._model = stream.runner.model
        self._modules = dict(self._model.named_modules())

    def find(self, stage: Stage, weights: Weights) -> tuple[list[Pair], list[PairResult]]:
        """Pairs that keep what the stage gives, and what there is to say of the others.

        Proposals are tried with random scales, and shifts, in full precision; all processes must
        agree.
        """
        with together():
            chosen, names = self._chosen(stage, weights)
        everywhere = gather([(name, number) for name, number, _ in chosen])
        pairs, left = [], []
        for name, number, form in chosen:
            if form is not None and all((name, number) in each for each in everywhere):
                pairs.append(form)
            else:
                left.append(PairResult(stage.name, name, reason=names[name]))
        if not chosen:
            reason = "neither a norm that linears read nor attention was found"
            left.append(PairResult(stage.name, "any pair", reason=reason))
        return pairs, left

    def ranges(self, stage: Stage, pairs: list[Pair]) -> dict[str, Range]:
        """Ranges of what is scaled, over the batches of all processes."""
        wanted = {
            next(part.layer for part in pair.parts if part.inputs)
            for pair in pairs
            if any(part.inputs for part in pair.parts)
        }
        found: dict[str, Range] = {}
        with together():
            for batch in range(len(self._stream.runner)):
                mask = self._stream.runner.mask(batch)
                hear = partial(_widen, found, mask)
                with _hearing({name: self._modules[name] for name in wanted}, hear):
                    self._stream.run(stage, batch)
        both = gather({name: (one.low.cpu(), one.high.cpu()) for name, one in found.items()})
        heard = [name for name in wanted if any(name in each for each in both)]
        return {
            name: Range(
                torch.stack([each[name][0] for each in both if name in each]).amin(0),
                torch.stack([each[name][1] for each in both if name in each]).amax(0),
            )
            for name in heard
        }

    def _chosen(
        self, stage: Stage, weights: Weights
    ) -> tuple[list[tuple[str, int, Pair | None]], dict[str, str]]:
        """Of every proposal its name, the number of its first exact form, and that form."""
        batch = self._batch(stage)
        if batch is None:
            return [], {}
        run = partial(self._outputs, stage, batch)
        plain, heard = self._heard(stage, run)
        block = "" if stage.place is None else stage.name
        own = own_parameters(self._model, self._stream.runner.chain, stage).values()
        changeable = {id(parameter) for parameter in own}
        chosen: list[tuple[str, int, Pair | None]] = []
        reasons: dict[str, str] = {}
        for proposal in proposals(heard, self._modules, block):
            number, form = -1, None
            reasons[proposal.name] = "no form of it keeps what the block gives"
            for i, pair in enumerate(proposal.forms):
                if (kept := self._obstacle(pair, stage, changeable)) is not None:
                    reasons[proposal.name] = kept
                elif self._is_exact(pair, weights, run, plain):
                    number, form = i, pair
                    break
            chosen.append((proposal.name, number, form))
        return chosen, reasons

    def _batch(self, stage: Stage) -> int | None:
        """The first that is not routed past the stage."""
        batches = range(len(self._stream.runner))
        return next((i for i in batches if self._stream.run(stage, i) is not None), None)

    def _outputs(self, stage: Stage, batch: int) -> list[Tensor]:
        found = tensors_of(self._stream.run(stage, batch))
        return [t.double().nan_to_num() for t in found if t.is_floating_point()]

    def _heard(self, stage: Stage, run: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Heard]:
        """Run a stage, and see what its linears read and its norms give."""
        linears = {name: m for name, m in self._modules.items() if op_of(m) in _LINEAR}
        norms = {name: m for name, m in self._modules.items() if _is_norm(m)}
        order: list[str] = []
        inputs: list[tuple[str, Tensor]] = []
        given: list[tuple[str, Tensor]] = []

        def reads(name: str, module: nn.Module, x: Tensor) -> None:
            order.append(name)
            inputs.append((name, x))

        def gives(name: str, module: nn.Module, args: Any, output: Any) -> None:
            given.append((name, output))

        handles = [m.register_forward_hook(partial(gives, name)) for name, m in norms.items()]
        try:
            with _hearing(linears, reads):
                outputs = run()
        finally:
            for handle in handles:
                handle.remove()
        readers = {
            norm: tuple(dict.fromkeys(name for name, x in inputs if x is output))
            for norm, output in given
        }
        readers = {norm: names for norm, names in readers.items() if names}
        return outputs, Heard(tuple(dict.fromkeys(order)), readers)

    def _obstacle(self, pair: Pair, stage: Stage, changeable: set[int]) -> str | None:
        """What keeps a pair from being scaled at all."""
        for part in pair.parts:
            if part.layer not in stage.layers:
                return f"layer {part.layer!r} is not quantised with the block"
            if len(self._layers[part.layer].modules) > 1:
                return f"layer {part.layer!r} shares its weight"
        if pair.norm is None and any(self._has_prefix(part.layer) for part in pair.parts):
            return "tokens in front have keys and values of their own, which do not scale"
        held = [self._modules[name] for name in (*(p.layer for p in pair.parts), pair.norm) if name]
        for module in held:
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in changeable:
                    return "a tensor of it is shared with another block"
        return None

    def _has_prefix(self, layer: str) -> bool:
        """Whether a layer belongs to a module that attends to tokens in front."""
        words = layer.split(".")
        around = (self._modules[".".join(words[:i])] for i in range(len(words)))
        return any(one.kind == "prefix" for module in around for one in remaining(module))

    def _is_exact(
        self,
        pair: Pair,
        weights: Weights,
        run: Callable[[], list[Tensor]],
        plain: list[Tensor],
    ) -> bool:
        """Whether both sides of a pair undo each other, under random numbers."""
        half = replace(pair, parts=() if pair.norm else pair.parts[:1])
        both, alone = (
            sum(
                float((a - b).norm())
                for a, b in zip(self._scaled(one, pair, weights, run), plain, strict=True)
            )
            for one in (pair, half)
        )
        return both <= _LEFT * alone and alone > 0

    def _scaled(
        self, pair: Pair, whole: Pair, weights: Weights, run: Callable[[], list[Tensor]]
    ) -> list[Tensor]:
        layers = {part.layer: self._layers[part.layer] for part in whole.parts}
        originals = {name: weights.original(name) for name in layers}
        one = Equivalences(self._model, layers, originals, [pair], 0.0)
        generator = torch.Generator().manual_seed(0)
        for parameter in one.numbers[0].parameters():
            steps = torch.randint(-2, 3, (len(parameter),), generator=generator)
            parameter.copy_(steps * math.log(2))  # scales of 1/4 to 4, in which no dtype loses
        with one.unrounded():
            return run()


@contextmanager
def _hearing(
    modules: Mapping[str, nn.Module], hear: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call ``hear(name, module, input)`` before each of these runs."""

    def hook(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hear(name, module, args[0] if args else next(iter(kwargs.values())))

    handles = [
        m.register_forward_pre_hook(partial(hook, name), with_kwargs=True)
        for name, m in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _widen(
    found: dict[str, Range], mask: Tensor | None, name: str, module: nn.Module, x: Tensor
) -> None:
    (rows,) = rows_of(module, x, mask)
    low, high = rows.float().aminmax(dim=0)
    if name in found:
        low, high = torch.minimum(low, found[name].low), torch.maximum(high, found[name].high)
    found[name] = Range(low, high)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module has one gain for every channel, and nothing inside."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1 and not any(True for _ in module.children())
