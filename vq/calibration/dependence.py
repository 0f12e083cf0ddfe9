"""Which of its arguments every module of a network depends on, told by running it once.

Every tensor that torch computes depends on what it is computed from. That is followed from the
arguments to the outputs, not from values: a weight of zeros hides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vq.calibration.batches import as_it_was, tensors_of

__all__ = ["Dependence", "dependence"]

#: Functions that change their first argument without a trailing underscore.
_SETTERS = ("__setitem__", "__set__")


@dataclass(frozen=True)
class Dependence:
    """What a run shows.

    Attributes
    ----------
    reads, gives : mapping of module name to list of frozenset of str
        By calls, in order: arguments of the network, by the names that were given, which what a
        module reads, and what it gives, depends on. Modules that did not run are absent.
    output : frozenset of str
        What the network's own output depends on.
    """

    reads: Mapping[str, list[frozenset[str]]]
    gives: Mapping[str, list[frozenset[str]]]
    output: frozenset[str]


@torch.no_grad()
def dependence(
    model: nn.Module,
    inputs: Sequence[Tensor],
    names: Sequence[str],
    sources: Sequence[str] = (),
) -> Dependence:
    """Run a network, and tell what depends on what.

    Parameters
    ----------
    model : nn.Module
    inputs : sequence of tensors
    names : sequence of str
        What the inputs are called.
    sources : sequence of str
        Modules whose outputs are beginnings, too, under the modules' own names: what is behind
        them depends on these, and not on what they were made of.
    """
    watch = _Watch()
    for name, tensor in zip(names, inputs, strict=True):
        watch.mark(tensor, frozenset([name]))
    reads: dict[str, list[frozenset[str]]] = {}
    gives: dict[str, list[frozenset[str]]] = {}
    handles = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            reads.setdefault(name, []).append(watch.of((args, kwargs)))

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            gives.setdefault(name, []).append(watch.of(output))
            if name in sources:
                for tensor in tensors_of(output):
                    watch.mark(tensor, frozenset([name]))

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name), with_kwargs=True))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        with as_it_was(model):
            model.eval()
            with watch:
                output = model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return Dependence(reads, gives, watch.of(output))


class _Watch(TorchFunctionMode):
    """Follows tensors by their identity, and so keeps all of them until it ends."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: dict[int, tuple[Tensor, frozenset[str]]] = {}

    def mark(self, tensor: Tensor, names: frozenset[str]) -> None:
        self._marks[id(tensor)] = tensor, names

    def of(self, item: Any) -> frozenset[str]:
        """What the tensors of an item depend on."""
        item = list(item.values()) if isinstance(item, Mapping) else item
        found = [self._marks[id(t)][1] for t in tensors_of(item) if id(t) in self._marks]
        return frozenset().union(*found)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        names = self.of((args, kwargs))
        output = func(*args, **kwargs)
        if names:
            for tensor in tensors_of(output):
                self.mark(tensor, names)
            called = getattr(func, "__name__", "")
            changes = called in _SETTERS or (called.endswith("_") and not called.endswith("__"))
            if changes and args and isinstance(args[0], Tensor):
                self.mark(args[0], names)
        return output
