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

from vq.calibration import Batch, call_model
from vq.errors import ConfigError, SignbookError
from vq.layers import candidates, op_of

__all__ = [
    "Chain",
    "Survey",
    "arguments",
    "hidden_of",
    "inputs_of",
    "run_model",
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

    def home(self, layer: str) -> int | None:
        """Number of the block that holds a layer."""
        found = (i for i, name in enumerate(self.names) if layer == name or _within(layer, name))
        return next(found, None)


@dataclass(frozen=True, eq=False)
class Survey:
    """What a run of the model has shown.

    Attributes
    ----------
    order : list of str
        Layers by their first call.
    chain : Chain or None
    before : frozenset of str
        Layers that were called before the first block.
    """

    order: list[str]
    chain: Chain | None
    before: frozenset[str]


def inputs_of(batch: Batch) -> Any:
    """What the model is called with: a batch, or the first of (inputs, targets)."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def hidden_of(output: Any) -> Any:
    """The tensor that a block hands on."""
    return output[0] if isinstance(output, tuple | list) and output else output


def run_model(model: nn.Module, inputs: Any) -> Any:
    """Call the model.

    Raises
    ------
    ConfigError
        If it cannot take the inputs.
    """
    try:
        return call_model(model, inputs)
    except (RuntimeError, TypeError, IndexError, ValueError, KeyError) as error:
        if isinstance(error, SignbookError | torch.OutOfMemoryError) or "memory" in str(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"model must accept the calibration data, but raises {type(error).__name__}: {reason}"
        ) from error


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


def survey(model: nn.Module, batches: Sequence[Batch], wanted: Collection[str]) -> Survey:
    """Run the first batch, and further ones until every wanted layer has run.

    Raises
    ------
    ConfigError
        If layers of ``wanted`` never run, or the model cannot take a batch.
    """
    layers = {name: m for name, m in candidates(model) if op_of(m) is not None}
    log: list[str] = []
    handles = [m.register_forward_pre_hook(partial(_note, log, n)) for n, m in layers.items()]
    watches = [
        _Watch(name, container, layers, log)
        for name, container in model.named_modules()
        if isinstance(container, nn.ModuleList | nn.Sequential) and len(container)
    ]
    try:
        for i, batch in enumerate(batches):
            run_model(model, inputs_of(batch))
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
    if missing:
        raise ConfigError(
            f"layers must run on the calibration data, but {', '.join(map(repr, missing))} never "
            "did; keep them by the recipe, or give data that reach them"
        )
    order = list(dict.fromkeys(log))
    chain, before = _choose(watches, first)
    return Survey(order, chain, before)


def _note(log: list[str], name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
    log.append(name)


def _choose(watches: list["_Watch"], log: list[str]) -> tuple[Chain | None, frozenset[str]]:
    """The chain that holds most weights; chains in it that are plain sequences are unrolled."""
    good = {watch.name: watch for watch in watches if watch.is_chain(log)}
    if not good:
        return None, frozenset()
    best = max(good.values(), key=lambda watch: (watch.weights, len(watch.children)))
    names: list[str] = []
    blocks: list[nn.Module] = []

    def unroll(watch: "_Watch") -> None:
        for name, child in watch.children:
            if type(child) is nn.Sequential and name in good:
                unroll(good[name])
            else:
                names.append(name)
                blocks.append(child)

    unroll(best)
    chain = Chain(tuple(names), tuple(blocks), best.uniform, best.bare)
    inside = {name for name in log if chain.home(name) is not None}
    return chain, frozenset(log[: best.start]) - inside


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
        self.start, self.end = 0, 0
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
        if i == 0 and self._calls == 0:
            self.start = len(self._log)
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
        self.end = len(self._log)

    def is_chain(self, log: list[str]) -> bool:
        """Whether it was one, and no layer of others ran in between."""
        inside = log[self.start : self.end]
        own = all(any(n == c or _within(n, c) for c, _ in self.children) for n in inside)
        return self._ok and self._calls == len(self.children) and own

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._context = None


def _is_same(a: Any, b: Any) -> bool:
    plain = isinstance(a, str | int | float | type(None)) and type(a) is type(b)
    return a is b or (plain and bool(a == b))


def _within(name: str, prefix: str) -> bool:
    return name.startswith(f"{prefix}.")
