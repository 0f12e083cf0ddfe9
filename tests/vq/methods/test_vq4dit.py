"""VQ4DiT: what its switches mean, and that its assignments are worth more than its codebook."""

import pytest
import torch

import vq
from tests.vq.methods.models import distance, inputs, pair
from vq.formats.model import compressed_layers
from vq.learning.rules.candidates import Competition
from vq.methods.vq4dit import vq4dit_

KIND = vq.VQ(d=4, k=8)


def learnt(kind=KIND, **settings):
    model, teacher = pair(kind)
    result = vq4dit_(model, inputs(), teacher, **{"epochs": 12, "seed": 0, **settings})
    return model, result, distance(model, teacher)


def test_assignments_fit_better_than_the_codebook_alone():
    found = {n: learnt(n=n) for n in (1, 2, 3)}
    assert found[2][2] < 0.95 * found[1][2] and found[3][2] < 0.95 * found[1][2]
    told = found[2][1].rules["candidates"][-1]
    assert told["decided"] == 1 and told["moved"] > 0.05
    assert found[1][1].rules["candidates"][-1]["moved"] == 0


def test_only_codebooks_biases_and_norms_learn_beside_assignments():
    model, teacher = pair(KIND)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vq4dit_(model, inputs(), teacher, epochs=2)
    state = model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, state[name])}
    assert {"blocks.0.1.bias", "blocks.0.1.parametrizations.weight.original"} <= changed
    assert not any(name.startswith(("stem.weight", "head.weight")) for name in changed)
    with torch.no_grad():
        assert torch.equal(teacher(inputs()[0]), pair(KIND)[1](inputs()[0]))


def test_signs_learn_and_freeze_where_they_are_split():
    model, result, _ = learnt(vq.SSVQ(d=4, k=4), n=3, rates=vq.Rates(signs=0.1, kept=0))
    assert result.signs[-1].changed > 0 and result.settings["freezing"] is not None
    assert all(layer.weight.mixture is None for layer in compressed_layers(model))


@pytest.mark.parametrize(
    "setting",
    [
        {"begin": "uniform"},
        {"assignments_first": True},
        {"term": "variance", "ratchet": False},
    ],
)
def test_every_switch_makes_another_run(setting, monkeypatch):
    seen = []
    start = Competition.__init__
    monkeypatch.setattr(
        Competition,
        "__init__",
        lambda self, races, total, schedule: (
            seen.append(schedule),
            start(self, races, total, schedule),
        )[1],
    )
    assert learnt(epochs=3, **setting)[1].losses != learnt(epochs=3)[1].losses
    names = {"assignments_first": "codebook_waits"}
    for name, value in setting.items():
        assert getattr(seen[0], names.get(name, name)) == value
