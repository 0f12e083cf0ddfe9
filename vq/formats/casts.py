"""What a cast takes from the tensors that a compressed model keeps, so that files keep their bits.

Compressed weights are not cast at all (:mod:`vq.formats.weights`). Norms, biases and kept layers
are, and ``.half()`` is not undone by ``.float()``. Hence every module notes what its own tensors
were before a cast. That costs nothing until there is one; from then on those tensors stay in
memory beside what the cast has made of them.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vq.distributed import local

__all__ = ["uncast", "watch_casts"]


def watch_casts(model: nn.Module) -> None:
    """Let every module of ``model``, and of its copies, note what casts take from its tensors."""
    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            vars(module).setdefault("_apply", _Watch(module))


def uncast(model: nn.Module) -> dict[int, Tensor]:
    """What tensors of ``model`` were, by their ids, where nothing but casts has changed them."""
    found = {}
    for module in model.modules():
        if isinstance(watch := vars(module).get("_apply"), _Watch):
            for name, tensor in _own(module):
                if (before := watch.before(name, tensor)) is not None:
                    found[id(tensor)] = before
    return found


class _Watch:
    """``module._apply``, through which torch casts and moves."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        #: Tensors before casts, and digests of what these have made of them.
        self._seen: dict[str, tuple[Tensor, bytes]] = {}

    def __call__(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        tensors = {name: tensor.data for name, tensor in _own(self._module)}
        type(self._module)._apply(self._module, fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        for name, tensor in _own(self._module):
            was = tensors[name]
            if was.dtype == tensor.dtype or tensor.is_meta:
                continue
            first = self.before(name, was)
            self._seen[name] = (was if first is None else first, _digest(tensor))
        return self._module

    def before(self, name: str, tensor: Tensor) -> Tensor | None:
        """What ``tensor`` was before all casts, if it is what they have made of it."""
        first, digest = self._seen.get(name, (None, b""))
        return first if first is not None and _digest(tensor) == digest else None


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for table in (module._parameters, module._buffers):
        yield from ((name, tensor) for name, tensor in table.items() if tensor is not None)


def _digest(tensor: Tensor) -> bytes:
    data = local(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().data).digest()
