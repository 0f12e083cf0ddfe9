"""Files keep their bits through casts; what is changed in another way is stored as it is."""

import copy

import pytest
import torch
from torch import nn

import vq
from vq import SSVQ, Int8, Recipe
from vq.formats.casts import uncast, watch_casts
from vq.formats.model import kept_tensors


def model_of(dtype=torch.float32):
    torch.manual_seed(0)
    parts = [nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)]
    model = nn.Sequential(*parts).to(dtype)
    with torch.no_grad():
        model[1].running_var.uniform_(0.5, 2)
        model[3].weight.uniform_(0.5, 2)
    vq.compress_(model, Recipe({"0": SSVQ(d=4, k=4), "2": Int8(), "4": None}), progress=False)
    return model


def stored(model, path):
    vq.save(model, path)
    return path.read_bytes()


CASTS = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "to": lambda m: m.to("cpu", torch.float16),
    "type": lambda m: m.type(torch.bfloat16),
    "twice": lambda m: m.half().bfloat16(),
    "there and back": lambda m: m.bfloat16().half().float(),
    "a kept layer": lambda m: (m[4].half(), m)[1],
    "a compressed layer": lambda m: (m[0].half(), m)[1],
    "a norm, then all": lambda m: (m[1].bfloat16(), m.half())[1],
    "a copy": lambda m: copy.deepcopy(m).half(),
    "a copy of it": lambda m: copy.deepcopy(m.half()),
    "copies on the way": lambda m: copy.deepcopy(copy.deepcopy(m.half()).bfloat16()).double(),
    "moved": lambda m: m.to("cpu").share_memory(),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_files_keep_their_bits(tmp_path, cast, dtype):
    model = model_of(dtype)
    before = stored(model, tmp_path / "x")
    model = cast(model)
    assert stored(model, tmp_path / "x") == before


def test_quantised_models_keep_their_bits_too(tmp_path):
    import rescomp

    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    rescomp.quantize_(model, [torch.randn(4, 8)], 4)
    before = stored(model, tmp_path / "x")
    assert stored(model.half(), tmp_path / "x") == before


def test_what_is_trained_before_a_cast_is_what_it_keeps(tmp_path):
    model = copy.deepcopy(model_of())
    with torch.no_grad():
        model[3].weight += 0.1
    model[4].weight.data = torch.randn(8, 8)
    before = stored(model, tmp_path / "x")
    assert stored(model.half(), tmp_path / "x") == before


def test_what_is_changed_after_a_cast_is_stored_as_it_is():
    model = model_of().half()
    with torch.no_grad():
        model[3].weight += 0.1
    kept = kept_tensors(model)
    assert torch.equal(kept["3.weight"], model[3].weight) and kept["3.weight"].dtype == torch.half
    assert kept["3.bias"].dtype == kept["4.weight"].dtype == torch.float32
    kept = kept_tensors(model.bfloat16().float())
    assert kept["3.weight"].dtype == torch.half  # what was trained, not what casts made of it
    assert model(torch.randn(3, 8)).dtype == torch.float32


def test_tied_tensors_are_cast_together(tmp_path):
    model = nn.ModuleDict({"a": nn.Embedding(8, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    vq.compress_(model, Recipe({"a": None, "b": None, "c": Int8()}), progress=False)
    before = stored(model, tmp_path / "x")
    assert stored(model.half(), tmp_path / "x") == before
    assert model["a"].weight is model["b"].weight


def test_nothing_is_kept_without_a_cast():
    model = model_of()
    model.to("cpu").float()
    assert uncast(model) == {}
    watch_casts(model)  # once more is once
    model.half()
    assert {t.dtype for t in uncast(model).values()} == {torch.float32}


def test_a_cast_on_the_meta_device_asks_for_no_values():
    model = model_of().to("meta").half()
    assert {p.dtype for p in model[4].parameters()} == {torch.float16}
