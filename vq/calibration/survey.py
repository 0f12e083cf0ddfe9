"""In which order a model runs: its layers, and the blocks that hand one tensor on.

Blocks are the children of a ``ModuleList`` or ``Sequential`` that run once each, in order, each on
the output of the one before. Whether they do is seen by running the model, so that any decoder,
encoder or chain of modules is walked in the same way. A model without them is one block.
"""

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import Batch, call_model, on_batch, split, tensors_of
from vq.errors import ConfigError
from vq.layers import candidates, op_of, weight_id

__all__ = [
    "Chain",
    "Survey",
    "arguments",
    "hidden_of",
    "survey",
    "without_cache",
]


@dataclass(frozen=True, eq=False)
class Chain:
    """Blocks, each of which is called with the output of the one before.

    Attributes
    ----------
    names : tuple of str
    blocks : tuple of nn.Module
    uniform : bool
        Whether all are called with the same further arguments.
    bare : bool
        Whether they return a tensor, not a tuple that starts with it.
    """

    names: tuple[str, ...]
    blocks: tuple[nn.Module, ...]
    uniform: bool
    bare: bool


@dataclass(frozen=True, eq=False)
class Survey:
    """What a run of the model has shown.

    Attributes
    ----------
    order : list of str
        Layers by their first call. One with tied weights has the name of the first of them.
    chain : Chain or None
    places : mapping of layer to number
        Number of the block that first ran it; -1 before the first, their count behind the last.
    """

    order: list[str]
    chain: Chain | None
    places: Mapping[str, int]


def hidden_of(output: Any) -> Any:
    """The tensor that a block hands on."""
    return output[0] if isinstance(output, tuple | list) and output else output


def arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a block with its hidden state first, where transformers names it."""
    rest = dict(kwargs)
    if not args and "hidden_states" in rest:
        args = (rest.pop("hidden_states"),)
    return args, rest


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Keep transformers from handing caches to blocks, which run more than once here."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    cached = [c for c in configs.values() if getattr(c, "use_cache", None) is True]
    for config in cached:
        config.use_cache = False
    try:
        yield
    finally:
        for config in cached:
            config.use_cache = True


def survey(
    model: nn.Module,
    batches: Sequence[Batch],
    wanted: Collection[str],
    *,
    all_run: bool = True,
) -> Survey:
    """Run the first batch, and further ones until every wanted layer has run.

    Raises
    ------
    ConfigError
        If layers of ``wanted`` never run, unless ``all_run`` is False, or the model cannot take a
        batch.
    """
    layers = {name: m for name, m in candidates(model) if op_of(m) is not None}
    shared: dict[int, str] = {}  # the first layer that holds a weight
    log: list[str] = []
    watches = [
        _Watch(name, container, layers, log)
        for name, container in model.named_modules()
        if isinstance(container, nn.ModuleList | nn.Sequential) and len(container)
    ]
    # After the watches, so that a layer that is a block runs within it.
    handles = [
        m.register_forward_pre_hook(partial(_note, log, shared.setdefault(weight_id(m), n)))
        for n, m in layers.items()
    ]
    try:
        for i, batch in enumerate(batches):
            with on_batch(i + 1, batch):
                call_model(model, split(batch)[0])
            if i == 0:
                first = list(log)
                for watch in watches:
                    watch.close()
            if set(wanted) <= set(log):
                break
    finally:
        for handle in handles:
            handle.remove()
        for watch in watches:
            watch.close()
    missing = [name for name in wanted if name not in set(log)]
    if missing and all_run:
        raise ConfigError(
            f"layers must run on the calibration data, but {', '.join(map(repr, missing))} never "
            "did; keep them by the recipe, or give data that reach them"
        )
    # What is looked up is not calibrated, so that it may run in many places.
    single = {name for name in wanted if op_of(layers[name]) != "embedding"}
    chain, places = _choose(model, watches, first, single)
    if chain is not None:
        with on_batch(1, batches[0]):
            if _passes_by(model, chain, split(batches[0])[0]):
                chain, places = None, {}
    if chain is not None:  # those that only a later batch reached
        for i, block in enumerate(chain.blocks):
            held = set(block.modules())
            places |= {n: i for n in wanted if n not in places and layers[n] in held}
        places = dict.fromkeys(wanted, len(chain.blocks)) | places
    return Survey(list(dict.fromkeys(log)), chain, places)


def _note(log: list[str], name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    log.append(name)


def _choose(
    model: nn.Module, watches: list["_Watch"], log: list[str], single: Collection[str]
) -> tuple[Chain | None, dict[str, int]]:
    """The chain that holds most weights; chains in it that are plain sequences are unrolled.

    None of those in one of several modules that are alike and no chain: that may be an expert,
    and what is behind it depends on which tokens were routed to it.
    """
    good = {watch.name: watch for watch in watches if watch.is_chain(log, single)}
    choices = tuple(
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.ModuleDict)
        and name not in good
        and len(module) > len({type(child) for child in module.children()}) == 1
    )
    good = {name: watch for name, watch in good.items() if not name.startswith(choices)}
    if not good:
        return None, {}
    best = max(good.values(), key=lambda watch: (watch.weights, len(watch.children)))
    names: list[str] = []
    blocks: list[nn.Module] = []
    spans: list[tuple[int, int]] = []

    def unroll(watch: "_Watch") -> None:
        for (name, child), span in zip(watch.children, watch.spans, strict=True):
            if type(child) is nn.Sequential and name in good:
                unroll(good[name])
            else:
                names.append(name)
                blocks.append(child)
                spans.append(span)

    unroll(best)
    places: dict[str, int] = {}
    for position, layer in enumerate(log):
        place = _place(position, spans)
        assert place is not None
        places.setdefault(layer, place)
    return Chain(tuple(names), tuple(blocks), best.uniform, best.bare), places


def _passes_by(model: nn.Module, chain: Chain, inputs: Any) -> bool:
    """Whether a block is also called with what another has computed, beside the hidden state.

    That would be another in the quantised model. It is seen by turning what the first block gives.
    """
    if chain.uniform:
        return False

    def turned(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = hidden_of(output).roll(1, -1)
        return hidden if chain.bare else (hidden, *output[1:])

    before = _contexts(model, chain, inputs)
    handle = chain.blocks[0].register_forward_hook(turned)
    try:
        after = _contexts(model, chain, inputs)
    finally:
        handle.remove()
    return len(before) != len(after) or not all(map(torch.equal, before, after))


def _contexts(model: nn.Module, chain: Chain, inputs: Any) -> list[Tensor]:
    """All tensors that blocks are called with in a run, less the hidden states."""
    found: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        args, kwargs = arguments(args, kwargs)
        found.extend(tensors_of((args[1:], kwargs)))

    handles = [b.register_forward_pre_hook(note, with_kwargs=True) for b in chain.blocks]
    try:
        call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _place(position: int, spans: list[tuple[int, int]]) -> int | None:
    """Number of the span that holds a position; -1 before all, their count behind, else None."""
    if position < spans[0][0]:
        return -1
    if position >= spans[-1][1]:
        return len(spans)
    return next((i for i, (start, end) in enumerate(spans) if start <= position < end), None)


class _Watch:
    """Sees whether the children of a container hand one tensor on while the model runs once."""

    def __init__(
        self, name: str, container: Any, layers: Mapping[str, nn.Module], log: list[str]
    ) -> None:
        self.name = name
        prefix = f"{name}." if name else ""
        self.children = [(f"{prefix}{key}", child) for key, child in container.named_children()]
        held = [m for n, m in layers.items() if n.startswith(prefix)]
        self.weights = sum(w.numel() for m in held if isinstance(w := m.weight, Tensor))
        self.uniform, self.bare = True, True
        #: Where in the log each child begins and ends.
        self.spans: list[tuple[int, int]] = []
        self._log = log
        self._ok, self._calls = bool(held), 0
        self._last: Any = None  # a weak reference: watching keeps no activation alive
        self._context: tuple[Any, ...] | None = None
        self._handles = []
        for i, (_, child) in enumerate(self.children):
            enter = partial(self._enter, i)
            self._handles.append(child.register_forward_pre_hook(enter, with_kwargs=True))
            self._handles.append(child.register_forward_hook(self._leave))

    def _enter(
        self, i: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        args, kwargs = arguments(args, kwargs)
        hidden = args[0] if args else None
        self.spans.append((len(self._log), len(self._log)))
        self._ok = self._ok and i == self._calls and isinstance(hidden, Tensor)
        self._ok = self._ok and (i == 0 or self._last() is hidden)
        self._calls += 1
        if not self._ok:
            return
        context = (*args[1:], *(item for pair in sorted(kwargs.items()) for item in pair))
        if self._context is None:
            self._context = context
        same = len(context) == len(self._context)
        same = same and all(map(_is_same, context, self._context))
        self.uniform = self.uniform and same

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        hidden = hidden_of(output)
        self.bare = self.bare and hidden is output
        self._ok = self._ok and isinstance(hidden, Tensor)
        self._last = weakref.ref(hidden) if isinstance(hidden, Tensor) else None
        self.spans[-1] = (self.spans[-1][0], len(self._log))

    def is_chain(self, log: list[str], single: Collection[str]) -> bool:
        """Whether it was one, no layer ran in between, and each of ``single`` in one place only."""
        if not self._ok or self._calls != len(self.children):
            return False
        places = [_place(position, self.spans) for position in range(len(log))]
        found = {(n, place) for n, place in zip(log, places, strict=True) if n in single}
        return None not in places and len(found) == len({name for name, _ in found})

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._context = None


def _is_same(a: Any, b: Any) -> bool:
    plain = isinstance(a, str | int | float | type(None)) and type(a) is type(b)
    return a is b or (plain and bool(a == b))
