"""Weights as their modules see them: ordinary to read, refused to whoever writes to them.

A compressed weight is decoded anew whenever it is asked for. Whoever writes to it, as adapters do
to be merged, would write to nothing.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError

__all__ = ["Decoded", "decoded", "refusal"]

#: Methods with an underscore at their end that leave the values alone.
_HARMLESS = {"requires_grad_", "share_memory_"}
_OPERATORS = "add sub mul truediv floordiv mod pow and or xor lshift rshift".split()
_WRITES = [
    *(n for n in dir(Tensor) if n.endswith("_") and not n.startswith("_") and n not in _HARMLESS),
    *(f"__i{operator}__" for operator in _OPERATORS),
    "__setitem__",
]

#: Properties and methods of which some results are other looks at the same memory.
_VIEWS = ["T", "H", "mT", "mH", "real"]
_VIEWERS = """
__getitem__ adjoint as_strided chunk contiguous cpu detach diagonal dsplit expand
expand_as flatten float hsplit moveaxis movedim narrow permute ravel reshape reshape_as
select split squeeze swapaxes swapdims t tensor_split to transpose type_as unbind
unflatten unfold unsqueeze view view_as vsplit
""".split()

_DATA: Any = Tensor.data


def decoded(weight: Tensor, layer: str) -> Tensor:
    """Let the new tensor ``weight`` of ``layer`` refuse writes; stand-ins of tracers do not."""
    if type(weight) is Tensor and not torch.compiler.is_compiling():
        weight.__class__ = Decoded  # not a view of it, which would cost a node of autograd
        weight.layer = layer  # type: ignore[attr-defined]
    return weight


class Decoded(Tensor):
    """A decoded weight. What is computed from it is an ordinary tensor, as are copies of it.

    ``detach()``, ``data``, slices and other views refuse writes, too.
    """

    layer: str
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def data(self) -> Tensor:
        return decoded(_DATA.__get__(self), self.layer)

    @data.setter
    def data(self, value: Tensor) -> None:
        raise ConfigError(refusal(self.layer))

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        """Become what ``nn.Parameter(weight)`` asks for, which is written to like any other."""
        self.__class__ = nn.Parameter  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return copy.deepcopy(self.as_subclass(Tensor), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def refusal(layer: str) -> str:
    """Text of the error for whoever writes to the weight of a compressed layer."""
    return (
        f"layer {layer!r}: a compressed weight must not be assigned to or changed in place, since "
        "that would be lost; change the original model, as by merging adapters, and compress it"
    )


def _refused(self: Decoded, *args: Any, **kwargs: Any) -> Tensor:
    raise ConfigError(refusal(self.layer))


def _looks(self: Decoded, found: Any) -> Any:
    """Let what looks at the memory of ``self`` refuse writes as well."""
    if isinstance(found, tuple | list):
        return type(found)(_looks(self, one) for one in found)
    same: bool = torch._C._is_alias_of(self, found)  # type: ignore[attr-defined]
    return decoded(found, self.layer) if same else found


def _viewed(name: str) -> Any:
    plain: Any = getattr(Tensor, name)
    if name in _VIEWS:
        return property(lambda self: _looks(self, plain.__get__(self)))
    return lambda self, *args, **kwargs: _looks(self, plain(self, *args, **kwargs))


for _name in _WRITES:
    setattr(Decoded, _name, _refused)
for _name in (*_VIEWS, *_VIEWERS):
    setattr(Decoded, _name, _viewed(_name))
