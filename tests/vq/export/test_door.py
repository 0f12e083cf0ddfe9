"""Inputs and outputs of graphs: names, order, and what is no tensor."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from vq.export.door import Door, named_inputs, named_outputs, replaced


@dataclass
class Found:
    logits: Tensor
    cache: object
    states: tuple[Tensor, ...]


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, scale: float = 1.0):
        x = x if mask is None else x * mask
        return Found(self.fc(x) * scale, object(), (x, x + 1))


def names(pairs):
    return [name for name, _ in pairs]


X, Y = torch.ones(2, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("inputs", "want"),
    [
        (X, ["x"]),
        ((X, Y), ["x", "mask"]),
        ([X, Y, X], ["x", "mask", "input_2"]),
        ({"mask": Y, "x": X, "scale": 2.0}, ["mask", "x"]),
        ((Pair(X, Y), [X, {"a": Y}]), ["x_left", "x_right", "mask_0", "mask_1_a"]),
        ((X, None), ["x"]),
    ],
)
def test_inputs_are_named_as_forward_names_them(inputs, want):
    assert names(named_inputs(Model(), inputs)) == want


@pytest.mark.parametrize(
    ("outputs", "want"),
    [
        (X, ["output"]),
        ((X, Y), ["output_0", "output_1"]),
        ([X], ["output_0"]),
        (Pair(X, Y), ["left", "right"]),
        ({"logits": X, "x": Y, "note": "text"}, ["logits", "x_out"]),
        (Found(X, object(), (X, Y)), ["logits", "states_0", "states_1"]),
        (None, []),
    ],
)
def test_outputs_are_named_by_their_fields(outputs, want):
    assert names(named_outputs(outputs, {"x"})) == want


def test_other_tensors_go_where_those_of_the_batch_were():
    batch = {"a": (X, 3, Pair(X, X)), "b": Found(X, None, (X,))}
    tensors = [torch.full((1,), float(i)) for i in range(5)]
    found = replaced(batch, iter(tensors))
    assert isinstance(found["a"][2], Pair) and isinstance(found["b"], Found)
    assert found["a"][1] == 3 and found["b"].cache is None
    assert [t for _, t in named_inputs(Model(), found)] == tensors


@pytest.mark.parametrize("inputs", [X, (X, Y), {"x": X, "scale": 3.0}])
def test_the_door_gives_the_tensors_of_the_model(inputs):
    model = Model()
    given = [t for _, t in named_inputs(model, inputs)]
    found = Door(model, inputs, {})(*given)
    want = model(**inputs) if isinstance(inputs, dict) else model(*given)
    assert torch.equal(found[0], want.logits) and torch.equal(found[2], want.states[1])


def test_initializers_bear_the_names_of_the_state():
    codes, scale = torch.zeros(2, 3, dtype=torch.int8), torch.ones(2)
    door = Door(Model(), X, {"fc.weight": (codes, scale, 0)})
    found = [door.initializer(name) for name in ("model.fc.bias", "codes_0", "scale_0", "val_3")]
    assert found == ["fc.bias", "fc.weight", "fc.weight_scale", "val_3"]
