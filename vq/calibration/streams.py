"""The two models, quantised and not, side by side: one set of modules, two sets of weights.

Only the hidden states at the boundary of the present block are kept, for every batch those of
either model. Inside a block nothing is: both models run again for every group of layers, batch by
batch, so that memory does not grow with the number of tokens beyond that boundary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import Batch, device_of, split, tensors_of, to_device
from vq.calibration.survey import (
    Chain,
    Survey,
    arguments,
    hidden_of,
    run_model,
)
from vq.recipe.selection import Selected

__all__ = ["Boundary", "Context", "Runner", "Stage", "Weights", "leave", "stages_of"]


class _Reached(BaseException):
    """Leaves a model as soon as what it ran for is known; no model catches it."""


@dataclass(frozen=True, eq=False)
class Context:
    """What a block is called with besides the hidden state: masks, positions."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class Boundary:
    """Hidden states of one model before the next block, by batch.

    Attributes
    ----------
    hidden : list of Tensor
    contexts : list of list of Context
        For every batch, one for every block, or one for all.
    """

    hidden: list[Tensor] = field(default_factory=list)
    contexts: list[list[Context]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of the model whose layers are quantised before the next part runs.

    ``place`` is the number of a block, or None: "start" is all before the first block, "end" all
    after the last, "model" all there is.
    """

    name: str
    layers: list[Selected]
    place: int | None = None


def stages_of(layers: Sequence[Selected], seen: Survey) -> list[Stage]:
    """Parts of a model in the order they run; blocks also where they hold no layer."""
    if seen.chain is None:
        return [Stage("model", list(layers))]
    names, last = seen.chain.names, len(seen.chain.names)
    parts: dict[int, list[Selected]] = {i: [] for i in range(-1, last + 1)}
    for layer in layers:
        parts[seen.places[layer.name]].append(layer)
    blocks = [Stage(name, parts[i], i) for i, name in enumerate(names)]
    return [Stage("start", parts[-1]), *blocks, Stage("end", parts[last])]


class Weights:
    """Weights of a stage's layers in both models; the quantised ones are in place by default."""

    def __init__(self, layers: Sequence[Selected]) -> None:
        self._parameters: dict[str, nn.Parameter] = {}
        for layer in layers:
            weight = layer.modules[0].weight
            assert isinstance(weight, nn.Parameter)
            self._parameters[layer.name] = weight
        self._original = {name: p.data for name, p in self._parameters.items()}
        self._current = dict(self._original)

    def original(self, name: str) -> Tensor:
        """Unquantised weight of a layer."""
        return self._original[name]

    def put(self, name: str, weight: Tensor) -> None:
        """Make a layer's quantised weight known and used."""
        self._current[name] = self._parameters[name].data = weight

    @contextmanager
    def unquantised(self) -> Iterator[None]:
        """Use the unquantised weights."""
        self._use(self._original)
        try:
            yield
        finally:
            self._use(self._current)

    def _use(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = weights[name]


class Runner:
    """Runs stages of a model on calibration data.

    Parameters
    ----------
    model : nn.Module
    batches : sequence of batches
    chain : Chain or None
    offload : bool
        Keep hidden states on the CPU between runs.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[Batch], chain: Chain | None, *, offload: bool
    ) -> None:
        self.model, self.batches, self.chain = model, batches, chain
        self.device = device_of(model)
        self._home = torch.device("cpu") if offload else self.device

    def __len__(self) -> int:
        return len(self.batches)

    def mask(self, batch: int) -> Tensor | None:
        """Which tokens of a batch count, [B, T] bool; None if the batch does not say."""
        inputs = split(self.batches[batch])[0]
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return None
        return mask.to(self.device).bool()

    def alike(self, batch: int, other: int) -> bool:
        """Whether two batches hold tensors of the same shapes."""
        shapes = [[t.shape for t in tensors_of(split(self.batches[i])[0])] for i in (batch, other)]
        return shapes[0] == shapes[1]

    def boundary(self) -> Boundary:
        """Run what comes before the first block, and all blocks where their contexts differ."""
        found = Boundary()
        assert self.chain is not None
        for batch in range(len(self)):
            contexts: list[Context] = []
            with _entering(self.chain, found.hidden, contexts), _leaving():
                run_model(self.model, split(self.batches[batch])[0])
            found.hidden[batch] = self._keep(found.hidden[batch])
            found.contexts.append(contexts)
        return found

    def run(self, stage: Stage, batch: int, boundary: Boundary | None) -> Tensor | None:
        """Run a stage on a batch; the hidden state of a block is returned."""
        if self.chain is None or stage.name == "start":
            stop = nullcontext() if self.chain is None else _stopping(self.chain.blocks[0])
            with stop, _leaving():
                run_model(self.model, split(self.batches[batch])[0])
            return None
        assert boundary is not None
        hidden = boundary.hidden[batch].to(self.device)
        if stage.place is None:
            with _skipping(self.chain, hidden), _leaving():
                run_model(self.model, split(self.batches[batch])[0])
            return None
        contexts = boundary.contexts[batch]
        context = contexts[min(stage.place, len(contexts) - 1)]
        args, kwargs = to_device((context.args, context.kwargs), self.device)
        found: list[Tensor] = []
        with _leaving():
            # A copy: blocks may work in place, and this one runs again.
            output = self.chain.blocks[stage.place](hidden.clone(), *args, **kwargs)
            found.append(self._keep(hidden_of(output)))
        return found[0] if found else None

    def advance(self, stage: Stage, boundary: Boundary) -> None:
        """Take a boundary behind a block, batch by batch."""
        for batch in range(len(self)):
            found = self.run(stage, batch, boundary)
            assert found is not None
            boundary.hidden[batch] = found

    def _keep(self, hidden: Tensor) -> Tensor:
        return hidden.detach().to(self._home)


@contextmanager
def _leaving() -> Iterator[None]:
    """What :func:`leave` leaves."""
    try:
        yield
    except _Reached:
        pass


def leave() -> None:
    """Stop a run of the model from within a hook."""
    raise _Reached


@contextmanager
def _stopping(block: nn.Module) -> Iterator[None]:
    """Leave the model before a block."""
    handle = block.register_forward_pre_hook(lambda module, args: leave())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _entering(chain: Chain, hidden: list[Tensor], contexts: list[Context]) -> Iterator[None]:
    """Note what blocks are called with; leave before the first if that says it of all."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        args, kwargs = arguments(args, kwargs)
        if not contexts:
            hidden.append(args[0].clone())
        contexts.append(Context(args[1:], kwargs))
        if chain.uniform:
            leave()

    handles = [b.register_forward_pre_hook(enter, with_kwargs=True) for b in chain.blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _skipping(chain: Chain, hidden: Tensor) -> Iterator[None]:
    """Let the last block return ``hidden`` and the others what they are given."""

    def forward(block: nn.Module) -> Callable[..., Any]:
        def skipped(*args: Any, **kwargs: Any) -> Any:
            (given, *_), _ = arguments(args, kwargs)
            out = hidden.clone() if block is chain.blocks[-1] else given
            return out if chain.bare else (out,)

        return skipped

    own = [vars(block).get("forward") for block in chain.blocks]
    for block in chain.blocks:
        block.forward = forward(block)
    try:
        yield
    finally:
        for block, before in zip(chain.blocks, own, strict=True):
            del block.forward
            if before is not None:
                block.forward = before
