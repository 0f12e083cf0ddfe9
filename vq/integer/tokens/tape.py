"""What a model computes, operation by operation, as it runs.

A call of a function of torch counts if a tensor goes into it that depends on the model's input.
Equal calls of one model get equal places, so that what was learnt of a place in one run holds in
the next one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from vq.errors import ConfigError

__all__ = ["Tape", "module_names", "tensors_in"]

#: Questions about a tensor's values that a model must not ask.
_ANSWERS = ("item", "__bool__", "tolist", "__int__", "__float__", "__index__")

See = Callable[[int, str, Any, Sequence[Any], Mapping[str, Any], Any], None]


class Tape(TorchFunctionMode):
    """Follows what depends on a tensor.

    Parameters
    ----------
    see : callable
        ``see(place, module, function, args, kwargs, result)`` after every call that counts, and
        before anything changes the result; ``module`` is the name of the module at work.
    names : list of str
        From :func:`module_names`.
    """

    def __init__(self, see: See, names: Sequence[str]) -> None:
        super().__init__()
        self._see, self._names, self._place = see, names, 0
        self._followed = WeakIdKeyDictionary()

    def follow(self, tensor: Tensor) -> None:
        """Take a tensor for one of the model's inputs."""
        self._followed[tensor] = True

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        depends = any(one in self._followed for one in tensors_in([*args, *given.values()]))
        found = func(*args, **given)
        if not depends:
            return found
        name = getattr(func, "__name__", str(func))
        module = self._names[-1] if self._names else ""
        results = list(tensors_in([found]))
        if not results:
            if name in _ANSWERS:
                raise ConfigError(
                    f"module {module!r}: must compute the same whatever its inputs are, but asks "
                    f"{name} of a value"
                )
            return found
        for one in results:
            self._followed[one] = True
        self._see(self._place, module, func, args, given, found)
        self._place += 1
        return found


def tensors_in(values: Sequence[Any]) -> Iterator[Tensor]:
    """Tensors among values, in lists and tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


@contextmanager
def module_names(model: nn.Module) -> Iterator[list[str]]:
    """A list in which the last name is that of the module of ``model`` that is at work."""
    names: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, args: Any, name: str = name) -> None:
            names.append(name)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            names.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with torch.no_grad():
            yield names
    finally:
        for handle in handles:
            handle.remove()
