"""The two models, as changed so far and unquantised, side by side.

Only the hidden states at the boundary of the present block are kept, for every batch those of
either model. Inside a block nothing is: both models run again for every group of layers, batch by
batch, so that memory does not grow with the number of tokens beyond that boundary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import (
    Batch,
    call_model,
    device_of,
    on_batch,
    split,
    tensors_of,
    to_device,
)
from vq.calibration.stages import Stage
from vq.calibration.survey import Chain, arguments, hidden_of

__all__ = ["Boundary", "Context", "Runner", "Stream", "Streams", "leave"]

_Using = Callable[[Stage], AbstractContextManager[Any]]


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
    hidden : list of Tensor or None
        None of a batch that is routed past the blocks, as some are past an expert.
    contexts : list of list of Context
        For every batch, one for every block, or one for all.
    """

    hidden: list[Tensor | None] = field(default_factory=list)
    contexts: list[list[Context]] = field(default_factory=list)


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

    def inputs(self, batch: int) -> Any:
        """What the model is called with."""
        return split(self.batches[batch])[0]

    def mask(self, batch: int) -> Tensor | None:
        """Which tokens of a batch count, [B, T] bool; None if the batch does not say."""
        inputs = self.inputs(batch)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            return None
        return mask.to(self.device).bool()

    def alike(self, batch: int, other: int) -> bool:
        """Whether two batches hold tensors of the same shapes."""
        shapes = [[t.shape for t in tensors_of(self.inputs(i))] for i in (batch, other)]
        return shapes[0] == shapes[1]

    def boundary(self) -> Boundary:
        """Run what comes before the first block, and all blocks where their contexts differ."""
        found = Boundary()
        assert self.chain is not None
        for batch in range(len(self)):
            hidden: list[Tensor] = []
            contexts: list[Context] = []
            with _entering(self.chain, hidden, contexts), self._running(batch):
                call_model(self.model, self.inputs(batch))
            found.hidden.append(self.keep(hidden[0]) if hidden else None)
            found.contexts.append(contexts)
        return found

    def run(
        self,
        stage: Stage,
        batch: int,
        boundary: Boundary | None,
        *,
        ahead: int = 0,
        passed: list[Tensor] | None = None,
    ) -> Any:
        """Run a stage on a batch and, if it is a block, up to ``ahead`` blocks behind it.

        What each of these blocks gives is added to ``passed``.

        Returns
        -------
        The hidden state before the first block or behind a block; the model's output where no
        block is left; None if a hook has stopped the run (:func:`leave`) or the batch is routed
        past the blocks.
        """
        with self._running(batch):
            if self.chain is None:
                return call_model(self.model, self.inputs(batch))
            if stage.name == "start":
                return self._before_blocks(batch)
            assert boundary is not None
            kept = boundary.hidden[batch]
            if kept is None:
                return call_model(self.model, self.inputs(batch)) if stage.place is None else None
            hidden = kept.to(self.device)
            if stage.place is None:
                with _skipping(self.chain, hidden):
                    return call_model(self.model, self.inputs(batch))
            hidden = hidden.clone()  # blocks may work in place, and this one runs again
            contexts = boundary.contexts[batch]
            behind = stage.place + 1 + ahead
            for place, block in enumerate(self.chain.blocks[:behind]):
                if place >= stage.place:
                    context = contexts[min(place, len(contexts) - 1)]
                    args, kwargs = to_device((context.args, context.kwargs), self.device)
                    hidden = hidden_of(block(hidden, *args, **kwargs))
                    if passed is not None:
                        passed.append(hidden.clone())  # the next one may work in place
            return hidden
        return None

    def _before_blocks(self, batch: int) -> Tensor | None:
        found: list[Tensor] = []
        assert self.chain is not None
        with _stopping(self.chain.blocks[0], found), _leaving():
            call_model(self.model, self.inputs(batch))
        return found[0] if found else None

    def advance(self, stage: Stage, boundary: Boundary) -> None:
        """Take a boundary behind a block, batch by batch."""
        for batch in range(len(self)):
            if boundary.hidden[batch] is not None:
                boundary.hidden[batch] = self.keep(self.run(stage, batch, boundary))

    @contextmanager
    def _running(self, batch: int) -> Iterator[None]:
        """A run that may be left, and whose errors name the batch."""
        with on_batch(batch + 1, self.batches[batch]), _leaving():
            yield

    def keep(self, hidden: Tensor) -> Tensor:
        """What is kept of a hidden state between runs."""
        return hidden.detach().to(self._home)


class Stream:
    """One model on its way through the stages.

    Parameters
    ----------
    runner : Runner
    using : callable, optional
        ``using(stage)`` gives a context in which the runner's model is that of this stream.

    Attributes
    ----------
    boundary : Boundary or None
        Hidden states before the present stage; None before there are any.
    """

    def __init__(self, runner: Runner, using: _Using = lambda stage: nullcontext()) -> None:
        self.runner, self._using = runner, using
        self.boundary: Boundary | None = None

    def run(
        self,
        stage: Stage,
        batch: int,
        *,
        ahead: int = 0,
        boundary: Boundary | None = None,
        passed: list[Tensor] | None = None,
    ) -> Any:
        """Run the present stage (:meth:`Runner.run`), on another stream's hidden states if given.

        With gradients where they are enabled, up to the hidden states at the boundary.
        """
        with self._using(stage):
            return self.runner.run(
                stage, batch, boundary or self.boundary, ahead=ahead, passed=passed
            )

    def advance(self, stage: Stage) -> None:
        """Go on behind a stage that others follow."""
        with self._using(stage):
            if self.boundary is None:
                self.boundary = self.runner.boundary()
            else:
                self.runner.advance(stage, self.boundary)


@dataclass(frozen=True, eq=False)
class Streams:
    """The model as changed so far and, where somebody needs it, the unquantised one beside it.

    Attributes
    ----------
    changed : Stream
    reference : Stream or None
        Of a second model, or of the same modules with their original weights.
    alike : bool
        The two differ in the layers of stages only, so that before any, they are one.
    """

    changed: Stream
    reference: Stream | None = None
    alike: bool = False

    def advance(self, stage: Stage) -> None:
        """Take both models behind a stage."""
        starts = self.changed.boundary is None
        if self.reference is not None:
            self.reference.advance(stage)
            shared = self.reference.boundary
            if starts and self.alike and not stage.layers and shared is not None:
                self.changed.boundary = Boundary(shared.hidden[:], shared.contexts)
                return
        self.changed.advance(stage)


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
def _stopping(block: nn.Module, hidden: list[Tensor]) -> Iterator[None]:
    """Leave the model before a block, and note the hidden state."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden.append(arguments(args, kwargs)[0][0])
        leave()

    handle = block.register_forward_pre_hook(enter, with_kwargs=True)
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
