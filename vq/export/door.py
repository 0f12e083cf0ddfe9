"""A model behind one flat list of named tensors: what a graph's inputs and outputs are."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["Door", "Int8", "named_inputs", "named_outputs", "replaced"]

#: A weight as it is stored: whole numbers, and the scale [] or [O] along an axis.
Int8 = tuple[Tensor, Tensor, int]


def named_inputs(model: nn.Module, inputs: Any) -> list[tuple[str, Tensor]]:
    """Tensors of a batch's inputs, named as ``forward`` of the model names its arguments."""
    if isinstance(inputs, Mapping):
        return list(_named(inputs, ""))
    given = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
    names = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    names += [f"input_{place}" for place in range(len(names), len(given))]
    return [pair for name, item in zip(names, given, strict=False) for pair in _named(item, name)]


def named_outputs(outputs: Any, taken: set[str]) -> list[tuple[str, Tensor]]:
    """Tensors of what a model returns, by field or key; ``output`` where they have no name.

    Names that are ``taken`` end in ``_out``. What is no tensor, such as a cache, is left out.
    """
    nameless = isinstance(outputs, Tensor | list) or type(outputs) is tuple
    pairs = _named(outputs, "output" if nameless else "")
    return [(f"{name}_out" if name in taken else name, tensor) for name, tensor in pairs]


def _named(item: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(item, Tensor):
        yield name, item
        return
    parts: list[tuple[Any, Any]] = []
    if isinstance(item, Mapping):
        parts = list(item.items())
    elif is_dataclass(item):
        parts = [(field.name, getattr(item, field.name)) for field in fields(item)]
    elif isinstance(item, tuple | list):
        parts = list(zip(getattr(item, "_fields", range(len(item))), item, strict=True))
    for key, part in parts:
        yield from _named(part, f"{name}_{key}" if name else str(key))


def replaced(item: Any, tensors: Iterator[Tensor]) -> Any:
    """A batch's inputs with other tensors in the order of :func:`named_inputs`."""
    if isinstance(item, Tensor):
        return next(tensors)
    if isinstance(item, Mapping):
        return {key: replaced(part, tensors) for key, part in item.items()}
    if is_dataclass(item) and not isinstance(item, type):
        return type(item)(
            **{f.name: replaced(getattr(item, f.name), tensors) for f in fields(item)}
        )
    if isinstance(item, tuple | list):
        make = getattr(item, "_make", type(item))  # named tuples take their parts one by one
        return make(replaced(part, tensors) for part in item)
    return item


class Door(nn.Module):
    """A model that takes tensors by position and returns a tuple of tensors.

    Parameters
    ----------
    model : nn.Module
    inputs : inputs of a batch
        How the model is called; what is no tensor in them becomes part of the graph.
    int8 : mapping of parameter name to Int8
        Weights that go into the graph as whole numbers and ``DequantizeLinear``. Only torch's
        exporter gives that a value.
    """

    def __init__(self, model: nn.Module, inputs: Any, int8: Mapping[str, Int8]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.int8 = dict(enumerate(int8))
        self.axes = [axis for _, _, axis in int8.values()]
        for place, (codes, scale, _) in enumerate(int8.values()):
            self.register_buffer(f"codes_{place}", codes)
            self.register_buffer(f"scale_{place}", scale)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = replaced(self.inputs, iter(tensors))
        weights = {name: self._weight(place) for place, name in self.int8.items()}
        if isinstance(inputs, Mapping):
            outputs = functional_call(self.model, weights, (), dict(inputs))
        else:
            given = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
            outputs = functional_call(self.model, weights, given)
        return tuple(tensor for _, tensor in named_outputs(outputs, set()))

    def _weight(self, place: int) -> Tensor:
        codes, scale = self.get_buffer(f"codes_{place}"), self.get_buffer(f"scale_{place}")
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (codes, scale),
            {"axis": self.axes[place]} if scale.ndim else {},
            dtype=torch.float32,
            shape=codes.shape,
        )

    def initializer(self, name: str) -> str:
        """Name in the graph of one of the door's own tensors: as in the model's state."""
        kind, _, place = name.partition("_")
        if kind in ("codes", "scale") and place.isdigit():
            weight = self.int8[int(place)]
            return weight if kind == "codes" else f"{weight}_scale"
        return name.removeprefix("model.")
