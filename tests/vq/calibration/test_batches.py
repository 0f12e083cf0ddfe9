"""Batches of calibration data, good and bad."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, unchanged
from vq import SSVQ, Recipe, distributed
from vq.calibration.batches import (
    call_model,
    each,
    fingerprint,
    fingerprint_of_all,
    on_batch,
    split,
    to_device,
)
from vq.errors import ConfigError


def test_a_batch_is_inputs_or_inputs_and_targets():
    x, y = torch.zeros(2), torch.ones(2)
    for batch, want in [
        (x, (x, None)), ((x,), (x, None)), ((x, y), (x, y)), ([x, y, y], (x, y)),
        ({"a": x}, ({"a": x}, None)), (((x, y), None), ((x, y), None)),
    ]:  # fmt: skip
        assert split(batch) == want


class Difference(nn.Module):
    def forward(self, a, b):
        return a - b


def test_tuples_lists_and_mappings_of_inputs_are_arguments():
    a, b = torch.ones(2), torch.zeros(2)
    for inputs in ((a, b), [a, b], {"b": b, "a": a}):
        assert torch.equal(call_model(Difference(), inputs), a)
    assert call_model(lambda_of(len), ([a, b, b],)) == 3  # a list as the only argument


def lambda_of(function):
    found = nn.Module()
    found.forward = function
    return found


class Labelled(NamedTuple):
    inputs: torch.Tensor
    labels: torch.Tensor


def test_tensors_of_all_containers_are_moved():
    x = torch.zeros(2)
    moved = to_device({"a": [x, (x, 3)], "b": None}, torch.device("meta"))
    assert moved["a"][0].is_meta and moved["a"][1][0].is_meta
    assert moved["a"][1][1] == 3 and moved["b"] is None
    moved = to_device(Labelled(x, x), torch.device("meta"))
    assert type(moved) is Labelled and moved.inputs.is_meta and moved.labels.is_meta


def test_fingerprint_depends_on_values_shapes_and_dtypes():
    x = torch.arange(6.0)
    data = [[x], [x.reshape(2, 3)], [x.double()], [(x, x)], [{"a": x}], [x + 1]]
    assert len({fingerprint(d) for d in data}) == len(data)
    assert fingerprint([x]) == fingerprint([x.clone()])


def test_one_process_has_its_own_fingerprint_less_the_targets():
    x, y = torch.arange(6.0), torch.ones(1)
    assert fingerprint_of_all([(x, y)]) == fingerprint([x])


def test_the_fingerprint_of_all_tells_which_process_has_what(monkeypatch):
    x = torch.arange(6.0)
    found = []
    for other in ("a", "b"):
        monkeypatch.setattr(distributed, "gather", lambda own, other=other: [own, own and other])
        found.append(fingerprint_of_all([x]))
    assert len({*found, fingerprint([x])}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"importance": "hessian"}, "importance must be 'inputs' or 'gradients', not 'hessian'"),
        ({"importance": "inputs"}, "calibration data must be given to measure importance"),
        ({"calibration": [], "importance": "inputs"}, "calibration data must hold at least one"),
        ({"calibration": []}, "calibration data must hold at least one batch, not none"),
        (
            {"calibration": [torch.zeros(4, 16)], "importance": "gradients"},
            r"calibration batches must be \(inputs, targets\)",
        ),
        (
            {"calibration": [torch.full((4, 16), float("inf"))], "importance": "inputs"},
            "^calibration batch 1, .*, must be finite, not NaN or infinity",
        ),
        (
            {"importance": {"fc1": torch.ones(2, 2)}},
            r"importance has 1 problem:\n- layer 'fc1': importance must have shape",
        ),
        (
            {"importance": {"fc1": -torch.ones(48, 64)}},
            r"importance has 1 problem:\n- layer 'fc1': importance must be non-negative",
        ),
    ],
)
def test_bad_calibration_is_one_clear_error_and_changes_nothing(settings, message):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match="^" + message):
        vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=16)}), **settings)
    unchanged(model, before)


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise KeyError("image")


def test_what_a_loader_s_worker_met_is_told():
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    with pytest.raises(ConfigError, match=r"must give batch 1, not raise KeyError: 'image'$"):
        list(each(loader))


def test_what_gives_batches_once_is_told_apart():
    batches = iter([torch.zeros(1)])
    assert len(list(each(batches))) == 1
    with pytest.raises(ConfigError, match=r"not none; they give their batches once: keep them"):
        list(each(batches))
    with pytest.raises(ConfigError, match=r"not none$"):
        list(each([]))


def test_long_texts_of_others_are_cut():
    with pytest.raises(ConfigError) as caught, on_batch(1, torch.zeros(2)):
        raise RuntimeError("one of " + ", ".join(f"Backend{i}" for i in range(200)))
    text = str(caught.value)
    assert text.endswith(", ...") and "Backend9, " in text and len(text) < 400
