"""A compressed model learns what its original gives: scales and norms, and only where it helps."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.rescomp.models import chain, vectors
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.fitting import held_out_of
from vq.learning.rates import Rates

KIND = vq.SSVQ(d=4, k=4, scale="output")
LEARNS = {"0.unit", "1.weight", "1.bias", "2.unit"}


def pair():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(12, 16), nn.LayerNorm(16), nn.Linear(16, 4, bias=False))
    model = copy.deepcopy(teacher)
    vq.compress_(model, vq.Recipe({"0": KIND, "2": KIND}))
    return model, teacher


def changed(model, before):
    return {
        name.replace("parametrizations.weight.0.", "")
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }


def test_scales_and_norms_alone_lower_the_divergence_and_take_no_bytes(tmp_path):
    model, teacher = pair()
    before, kept = copy.deepcopy(model.state_dict()), copy.deepcopy(teacher.state_dict())
    size = vq.save(model, tmp_path / "before.vq.safetensors").file_bytes
    result = vq.distil_(model, vectors(8), teacher, epochs=20, rates=Rates(0, 0, 1e-2, scales=1e-2))
    assert result.after < 0.9 * result.before
    assert changed(model, before) == LEARNS | {"0.bias"}
    assert vq.save(model, tmp_path / "after.vq.safetensors").file_bytes == size
    read = vq.load(tmp_path / "after.vq.safetensors", into=copy.deepcopy(teacher))
    assert torch.equal(read(vectors(1)[0]), model(vectors(1)[0]))
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    with torch.no_grad():  # the last of eight batches has judged
        x = vectors(8)[-1]
        student, wanted = (m(x).log_softmax(-1) for m in (model, teacher))
    divergence = nn.functional.kl_div(student, wanted, log_target=True, reduction="batchmean")
    assert result.after == pytest.approx(float(divergence), rel=1e-5)


def test_codebooks_and_signs_learn_where_they_have_a_rate():
    model, teacher = pair()
    before = copy.deepcopy(model.state_dict())
    rates = Rates(signs=1e-2, codebooks=1e-2, rest=1e-2, scales=1e-2)
    vq.distil_(model, vectors(8), teacher, epochs=20, rates=rates)
    assert {n for n in changed(model, before) if "original" in n} == {
        f"{layer}.parametrizations.weight.original{i}" for layer in (0, 2) for i in (0, 1)
    }


def test_a_model_that_does_not_get_better_stays_as_it_was():
    model, teacher = pair()
    before = copy.deepcopy(model.state_dict())
    result = vq.distil_(model, vectors(8), teacher, rates=Rates(0, 0, 1e3, scales=1e3, kept=0))
    assert result.after == result.before and not changed(model, before)
    assert all(layer.scales is None for layer in compressed_layers(model))


def test_a_run_that_is_resumed_is_the_same(tmp_path):
    settings = {"epochs": 2, "checkpoint_dir": tmp_path, "resume": True}
    found = []
    for _ in range(2):  # the second time, all is there
        model, teacher = pair()
        result = vq.distil_(model, vectors(8), teacher, **settings)
        found.append((result.before, result.after, model.state_dict()))
    assert found[0][:2] == found[1][:2] and not changed(model, found[0][2])
    want, _ = pair()
    vq.distil_(want, vectors(8), teacher, epochs=2)
    assert not changed(model, want.state_dict())


def test_shares_that_are_held_out():
    assert held_out_of(8, 0.25) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert held_out_of(4, 0.01) == ([0, 1, 2], [3])
    assert held_out_of(1, 0.5) == held_out_of(1, 0) == ([0], [0])


def test_impossible_settings_are_refused():
    model, teacher = pair()
    with pytest.raises(ConfigError, match=r"held_out must be at least 0 and below 1, not 1$"):
        vq.distil_(model, vectors(2), teacher, held_out=1)
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none"):
        vq.distil_(chain(), vectors(2), teacher)


def test_what_cannot_learn_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 4, bias=False))
    teacher = copy.deepcopy(model)
    vq.compress_(model, vq.Recipe({"0": vq.Int8()}))
    with pytest.raises(ConfigError, match="model must hold scales, norms or biases, not none"):
        vq.distil_(model, vectors(2), teacher)
    with pytest.raises(ConfigError, match="model must hold what has a rate above 0, not none"):
        vq.distil_(model, vectors(2), teacher, rates=Rates(signs=1, codebooks=1, rest=0))
