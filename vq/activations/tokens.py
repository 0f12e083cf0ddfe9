"""Activations in a few bits: every token is rounded on a grid of its own, as it comes."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vq.activations.transform import transforms_first
from vq.errors import ConfigError, UnsupportedLayerError, bulleted
from vq.formats.integers import applied
from vq.formats.remaining import remaining
from vq.layers import op_of

__all__ = ["ActivationQuantizer", "off", "round_tokens"]

_BITS = range(2, 9)


def round_tokens(x: Tensor, bits: int, *, symmetric: bool = True, clip: float = 1.0) -> Tensor:
    """Round every token to its own ``2**bits`` levels.

    Symmetric levels lie about 0, one more below than above, and the greatest magnitude of the
    token times ``clip`` is the last above. Otherwise they reach from the least value to the
    greatest, both times ``clip`` and with 0 between, and 0 is a level. The gradient passes as if
    nothing happened.

    Parameters
    ----------
    x : [..., I]
        Computed with in float32, returned in its own dtype.
    bits : int
    symmetric : bool
    clip : float
        Share of the range that is kept, at most 1.
    """
    rounded: Tensor = applied(_Tokens, x, bits, symmetric, clip)
    return rounded


def _rounded(x: Tensor, bits: int, symmetric: bool, clip: float) -> Tensor:
    values = x.float()
    if symmetric:
        top = (1 << (bits - 1)) - 1
        scale = _positive(values.abs().amax(dim=-1, keepdim=True) * clip / top)
        levels = (values / scale).round_().clamp_(-top - 1, top)
        return levels.mul_(scale).to(x.dtype)
    top = (1 << bits) - 1
    low = values.amin(dim=-1, keepdim=True).clamp(max=0) * clip
    high = values.amax(dim=-1, keepdim=True).clamp(min=0) * clip
    scale = _positive((high - low) / top)
    zero = (-low / scale).round_()
    levels = (values / scale).round_().add_(zero).clamp_(0, top).sub_(zero)
    return levels.mul_(scale).to(x.dtype)


def check_rounding(bits: int, clip: float) -> None:
    """Refuse settings that no rounding has.

    Raises
    ------
    ConfigError
    """
    if bits not in _BITS:
        raise ConfigError(f"activation bits must be 2 to 8, not {bits!r}")
    if not 0 < clip <= 1:
        raise ConfigError(f"activation clip must be in (0, 1], not {clip!r}")


def _positive(scale: Tensor) -> Tensor:
    """A token of zeros has scale 1."""
    return scale.masked_fill_(scale == 0, 1.0)


class _Tokens(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bits: int, symmetric: bool, clip: float) -> Tensor:
        return _rounded(x, bits, symmetric, clip)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing of the inputs is needed."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None, None


class ActivationQuantizer:
    """Rounds the inputs of linear layers while it is on; on from the start.

    A layer is rounded where torch calls it. A run of the model that leaves layers out although what
    holds them runs, such as one that takes a layer's weight without calling it, is refused; experts
    that no token has reached are not.

    Parameters
    ----------
    model : nn.Module
    layers : iterable of str
        Names of the layers.
    bits : int
        2 to 8.
    symmetric, clip
        See :func:`round_tokens`.

    Raises
    ------
    ConfigError
        If a setting is impossible, or the model has no such layer; from a run of the model, if no
        rounding takes place in it.
    UnsupportedLayerError
        If a layer is not linear: the inputs of a convolution are no tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        bits: int = 4,
        *,
        symmetric: bool = True,
        clip: float = 1.0,
    ) -> None:
        check_rounding(bits, clip)
        self.bits, self.symmetric, self.clip = bits, symmetric, clip
        self._is_on = True
        known = dict(model.named_modules())
        self.layers = names = tuple(layers)
        if not names:
            raise ConfigError("activations to round must have at least one layer, not none")
        missing = [name for name in names if name not in known]
        if missing:
            raise ConfigError(f"model must hold the layers {', '.join(missing)}, not lack them")
        done = [n for n in names if any(one.kind == "rounding" for one in remaining(known[n]))]
        if done:
            raise ConfigError(
                f"activations to round must not be rounded already, as those of {', '.join(done)} "
                "are by what remains in the model; leave them out"
            )
        problems = [
            f"layer {name!r}: must be linear, not {type(known[name]).__name__}"
            for name in names
            if op_of(known[name]) not in ("linear", "linear_t")
        ]
        if problems:
            raise UnsupportedLayerError(bulleted("activations to round", problems))
        self._owners = {name: _owner(name, known) for name in names}
        self._rounded: set[str] = set()  # layers that have been called; of their owners, _ran
        self._ran: set[str] = set()
        # Before all other hooks but transforms: those that look on see what the layer sees.
        self._handles = [
            known[name].register_forward_pre_hook(
                partial(self._round, name), prepend=True, with_kwargs=True
            )
            for name in names
        ]
        for name in names:
            transforms_first(known[name])
        self._handles += [
            known[owner].register_forward_pre_hook(partial(self._note, owner))
            for owner in {owner for owner, _ in self._owners.values()}
        ]
        self._handles.append(model.register_forward_hook(self._check))

    def __repr__(self) -> str:
        return (
            f"ActivationQuantizer({', '.join(self.layers)}, bits={self.bits}, "
            f"symmetric={self.symmetric}, clip={self.clip})"
        )

    def _round(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self._is_on:
            return None
        self._rounded.add(name)
        x, *rest = (*args, *kwargs.values())  # a linear layer has one input, by place or by name
        x = round_tokens(x, self.bits, symmetric=self.symmetric, clip=self.clip)
        return (x, *rest), {}

    def _note(self, owner: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._is_on:
            self._ran.add(owner)

    def _check(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Refuse a whole run of the model in which layers should have been called."""
        if self._is_on and (silent := self._silent()):
            raise ConfigError(
                f"activations to round must enter the layers, but the model runs without calling "
                f"{', '.join(silent)}; leave out layers whose weights it only reads"
            )

    def _silent(self) -> list[str]:
        """Layers that have not been called although they should have been."""
        if not self._rounded:
            return list(self.layers)
        left = self._owners.keys() - self._rounded
        called = [f"{name}." for name in self._rounded] if left else []
        return [
            name
            for name in self.layers
            if name in left
            and (held := self._owners[name])[0] in self._ran
            and not any(x.startswith(f"{held[1]}.") for x in called)
        ]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Context in which activations pass as they are."""
        before, self._is_on = self._is_on, False
        try:
            yield
        finally:
            self._is_on = before

    def remove(self) -> None:
        """Take the rounding out of the model."""
        for handle in self._handles:
            handle.remove()


def off(activations: ActivationQuantizer | None) -> AbstractContextManager[Any]:
    """Context in which activations are not rounded, if something rounds them."""
    return nullcontext() if activations is None else activations.off()


def _owner(name: str, known: Mapping[str, nn.Module]) -> tuple[str, str]:
    """The module whose ``forward`` should call a layer, and what it holds the layer in.

    That is the layer itself, or a list or mapping of modules, of which a run may call only some.
    """
    owner, group = name.rpartition(".")[0], name
    while owner and isinstance(known[owner], nn.ModuleList | nn.ModuleDict):
        owner, group = owner.rpartition(".")[0], owner
    return owner, group
