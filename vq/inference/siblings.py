"""Linears that read the same, as those of queries, keys and values do, multiplied by one call."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from vq.inference.kernels import kernels_for
from vq.inference.tiles import Tiling

__all__ = ["Siblings"]

#: For more tokens a call takes so long that another one does not matter.
_MOST_TOKENS = 16
#: Calls after which those that read the same should have shown.
_PATIENCE = 64

Key = tuple[torch.Size, bytes]


class Siblings:
    """What linears of one parent share, to be multiplied together where they read the same values.

    At first each runs alone. Those that were given the same values one behind the other are from
    then on multiplied when the first of them is called; the others, given the same values, take
    what is theirs. If that fails once, each runs alone for good. Values are compared as bytes, so
    that nothing is taken for what it is not. Copies find out anew.
    """

    def __init__(self) -> None:
        self._patience = _PATIENCE
        self._seen: list[Any] = []
        self._key: Key | None = None
        self._found: tuple[Any, ...] | None = None
        self._left: dict[Any, Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Siblings, ()

    def multiply(self, module: Any, x: Tensor) -> Tensor | None:
        """What a packed linear gives for ``x`` [..., I]: [..., O]; None if it is to run alone.

        No compiler may be at work.
        """
        t: Tiling = module.packed.tiling
        if (self._found is not None and module not in self._found) or not _fits(t, x):
            return None
        plain = x.float().contiguous()
        key = x.shape, ctypes.string_at(plain.data_ptr(), plain.nbytes)
        if self._found is None:
            self._listen(module, key)
        if self._found is None or module not in self._found:
            return None
        if module is self._found[0] and not self._left:
            self._key, self._left = key, self._all(plain)
        found = self._left.pop(module, None) if key == self._key else None
        if found is None:
            self._found, self._left = (), {}
            return None
        return found.to(x.dtype)

    def _listen(self, module: Any, key: Key) -> None:
        """Note a call; what was noted before it is complete if it reads other values."""
        if key == self._key and module not in self._seen:
            self._seen.append(module)
            return
        self._patience -= 1
        if len(self._seen) > 1 or not self._patience:
            self._found = tuple(self._seen) if len(self._seen) > 1 else ()
            self._seen = []
            return
        self._key, self._seen = key, [module]

    def _all(self, x: Tensor) -> dict[Any, Tensor]:
        modules = self._found or ()
        first = modules[0].packed
        library = kernels_for(first.tiling)
        if library is None or any(m.packed.activations != first.activations for m in modules):
            return {}
        layers = [m.packed.operand(m.bias) for m in modules]
        return dict(zip(modules, library.linear(layers, x, first.activations), strict=True))


def _fits(t: Tiling, x: Tensor) -> bool:
    """Whether a call is worth sharing; what is no input at all, the layer itself refuses."""
    return (
        x.is_cpu
        and x.is_floating_point()
        and x.dtype != torch.float64
        and x.ndim > 0
        and x.shape[-1] == t.inputs
        and 0 < x.numel() <= _MOST_TOKENS * t.inputs
        and t.bits <= 8
        and not (x.requires_grad and torch.is_grad_enabled())
    )
