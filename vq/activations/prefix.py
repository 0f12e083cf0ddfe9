"""Tokens in front of every sequence, of which attention has the keys and values, and nothing else.

Any module whose ``forward`` calls torch's ``scaled_dot_product_attention`` can have a prefix: while
it runs, the prefix's keys and values come before those that it gives, whatever it keeps in a cache,
and every query sees them. No state is left behind, so that a block may run alone, any number of
times. Keys are those at the positions before 0; the tokens themselves keep theirs.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from vq.errors import ConfigError
from vq.formats.remaining import Remaining

__all__ = ["Attention", "Prefix", "attentions", "prefix_of", "prefixes"]


class Prefix(Remaining):
    """``forward`` of a module that attends to tokens in front.

    Parameters
    ----------
    tokens : [p] int32
        What they are; of no effect.
    keys, values : [heads, p, size]
        Where the module gives keys of more heads, each stands for as many neighbours.
    heads : int
        Of queries.
    """

    kind: ClassVar[str] = "prefix"

    def __init__(self, tokens: Tensor, keys: Tensor, values: Tensor, heads: int) -> None:
        self.tokens, self.keys, self.values, self.heads = tokens, keys, values, heads
        self.module: nn.Module | None = None

    def __repr__(self) -> str:
        return f"Prefix({self.tokens.tolist()}, heads={self.heads})"

    def enter(self, module: nn.Module) -> None:
        """Put the prefix before what a module attends to, from now on."""
        self.module = module
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert self.module is not None
        mode = _Before(self)
        with mode:
            found = type(self.module).forward(self.module, *args, **kwargs)
        if not mode.calls:
            raise ConfigError(
                f"{type(self.module).__name__} with a prefix must attend by torch's "
                "scaled_dot_product_attention, and does not; set attn_implementation to 'sdpa'"
            )
        return found


def prefix_of(module: nn.Module) -> Prefix | None:
    """The prefix of a module, if it has one."""
    found = vars(module).get("forward")
    return found if isinstance(found, Prefix) else None


class _Before(TorchFunctionMode):
    """Puts a prefix before the keys and values of every attention."""

    def __init__(self, prefix: Prefix) -> None:
        super().__init__()
        self._prefix, self.calls = prefix, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.calls += 1
        call = _Call.of(args, kwargs)
        keys, values = (
            _spread(part, like) for part, like in
            ((self._prefix.keys, call.key), (self._prefix.values, call.value))
        )  # fmt: skip
        mask = call.mask
        if call.is_causal:
            shape = call.query.shape[-2], call.key.shape[-2]
            mask = torch.ones(shape, dtype=torch.bool, device=call.query.device).tril()
        if mask is not None:
            seen = mask.new_full((*mask.shape[:-1], keys.shape[-2]), mask.dtype == torch.bool)
            mask = torch.cat([seen, mask], dim=-1)
        return func(
            call.query,
            torch.cat([keys, call.key], dim=-2),
            torch.cat([values, call.value], dim=-2),
            attn_mask=mask,
            **call.rest,
        )


@dataclass(frozen=True, eq=False)
class _Call:
    """Arguments of an attention."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    is_causal: bool
    rest: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Call":
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, args, strict=False)) | kwargs
        query, key, value = (given.pop(name) for name in names[:3])
        mask, causal = given.pop("attn_mask", None), given.pop("is_causal", False)
        return cls(query, key, value, mask, causal, given)

    def looks_ahead(self) -> bool:
        """Whether a query sees keys behind its own place."""
        queries, keys = self.query.shape[-2], self.key.shape[-2]
        if self.is_causal or queries == 1:
            return False
        if self.mask is None:
            return True
        seen = self.mask if self.mask.dtype == torch.bool else self.mask > -1e4
        later = torch.ones(queries, keys, dtype=torch.bool, device=seen.device)
        return bool((seen & later.triu(keys - queries + 1)).any())


def _spread(part: Tensor, like: Tensor) -> Tensor:
    """Keys or values [heads, p, size] as a batch has them, [B, heads of the batch, p, size]."""
    own = part.to(like.device, like.dtype)
    own = own.repeat_interleave(like.shape[-3] // own.shape[0], dim=0)
    return own.expand(*like.shape[:-3], *own.shape)


@dataclass(frozen=True, eq=False)
class Attention:
    """What one module gave to an attention.

    Attributes
    ----------
    keys, values : [heads, T, size]
        Of the first sequence of a batch. Heads that repeat their neighbours are left out.
    heads : int
        Of queries.
    looks_ahead : bool
        Whether tokens see those behind them.
    calls : int
        Attentions in a run of the module.
    """

    keys: Tensor
    values: Tensor
    heads: int
    looks_ahead: bool
    calls: int = 1


def attentions(model: nn.Module, run: Callable[[], object]) -> dict[str, Attention]:
    """Modules that attend, by name in the order they run, and what they give to it.

    Parameters
    ----------
    model : nn.Module
    run : callable
        Runs the model once.
    """
    watch = _Watch()
    with watch.on(model), watch:
        run()
    return watch.found


class _Watch(TorchFunctionMode):
    """Notes attentions by the innermost module that is running."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Attention] = {}
        self._running: list[str] = []

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in model.named_modules():
            enter, leave = self._enter(name), self._leave
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._running.append(name)

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is scaled_dot_product_attention and self._running:
            self._note(_Call.of(args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def _note(self, call: _Call) -> None:
        name = self._running[-1]
        calls = 1 + (self.found[name].calls if name in self.found else 0)
        self.found[name] = Attention(
            *_distinct(call.key[0].detach().clone(), call.value[0].detach().clone()),
            heads=call.query.shape[-3],
            looks_ahead=call.looks_ahead(),
            calls=calls,
        )


@torch.no_grad()
def prefixes(model: nn.Module, tokens: Tensor) -> dict[str, Prefix]:
    """Run tokens before position 0, and give their keys and values by the modules that attend.

    Parameters
    ----------
    model : nn.Module
        Called with [1, p] tokens and their ``position_ids``.
    tokens : [p] integers

    Raises
    ------
    ConfigError
        If the model takes no ``position_ids``, or a module attends more than once.
    """
    places = torch.arange(-len(tokens), 0, device=tokens.device)[None]
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ConfigError(
            f"model must take position_ids to have tokens in front, and {type(model).__name__} "
            "does not"
        )
    try:
        found = attentions(model, lambda: model(tokens[None], position_ids=places))
    except (IndexError, RuntimeError) as error:  # a table has no place below 0
        raise ConfigError(
            f"model must have relative positions to have tokens in front, but "
            f"{type(model).__name__} takes none below 0: {error}"
        ) from error
    if several := [name for name, one in found.items() if one.calls > 1]:
        raise ConfigError(
            f"modules with a prefix must attend once in a run, and {', '.join(several)} do more "
            "often"
        )
    ids = tokens.to("cpu", torch.int32)
    return {name: Prefix(ids, one.keys, one.values, one.heads) for name, one in found.items()}


def _distinct(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Heads without the repetitions that grouped queries need."""
    for share in range(len(keys), 1, -1):
        if len(keys) % share == 0:
            parts = [part.reshape(-1, share, *part.shape[1:]) for part in (keys, values)]
            if all(bool((part == part[:, :1]).all()) for part in parts):
                return parts[0][:, 0].contiguous(), parts[1][:, 0].contiguous()
    return keys, values
