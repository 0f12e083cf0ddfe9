"""Weights that keep crossing the edge of two codes are frozen where they were most often."""

import pytest
import torch
from torch import nn

import vq
from vq.errors import ConfigError
from vq.formats.grids import Grid
from vq.formats.model import compressed_layers
from vq.formats.scalar_weights import ScalarWeight
from vq.formats.weights import attach
from vq.learning.rates import Rates
from vq.learning.rules.codes import CodeFreezer, CodeFreezing
from vq.learning.rules.driver import Rules
from vq.learning.rules.steps import Steps

SCHEDULE = CodeFreezing(
    interval_steps=4, momentum=0.2, threshold_start=0.3, threshold_end=0.2, warmup=0
)


def model_of(weight):
    """A layer in int4 with steps of 0.5."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data.copy_(weight)
    g = vq.Int4(group=64).geometry("0", "linear", tuple(weight.shape))
    attach(module, ScalarWeight(g, module.weight, Grid(torch.full((len(weight), 1), 0.5), None)))
    return nn.Sequential(module)


def moved(model, rule, *rows):
    (layer,) = compressed_layers(model)
    for step, row in enumerate(rows, 1):
        with torch.no_grad():
            layer.originals[0].copy_(torch.tensor([row]))
        rule.after_step(step)
    return layer


def test_an_oscillating_weight_is_frozen_at_its_majority_and_stays():
    model = model_of(torch.tensor([[0.2, 0.2, 0.2]]))
    rule = CodeFreezer(compressed_layers(model), 8, SCHEDULE)
    # The first goes to and fro and is at 1 in three of four steps, the second climbs, one rests.
    rows = [[0.3, 0.3, 0.2], [0.2, 0.8, 0.2], [0.3, 1.2, 0.2], [0.3, 1.7, 0.2]]
    layer = moved(model, rule, *rows)
    assert layer.originals[0][0].tolist() == pytest.approx([0.5, 1.7, 0.2])
    told = rule.measure()
    assert told.frozen == pytest.approx(1 / 3) and told.changed == pytest.approx(2 / 3)
    moved(model, rule, [-2.0, 1.7, 0.2])
    assert layer.originals[0][0].tolist() == pytest.approx([0.5, 1.7, 0.2])
    assert "frozen 33.3%" in rule.note()


def test_a_tie_keeps_the_present_code():
    model = model_of(torch.tensor([[0.2, 0.3]]))
    rule = CodeFreezer(compressed_layers(model), 8, SCHEDULE)
    layer = moved(model, rule, [0.3, 0.2], [0.2, 0.3], [0.3, 0.2], [0.2, 0.3])
    assert layer.originals[0][0].tolist() == [0, 0.5]


def test_frozen_weights_follow_their_step_and_the_state_goes_on():
    def made():
        model = model_of(torch.tensor([[0.2, 1.0]]))
        return model, Rules(model, [Steps(1e-2), SCHEDULE], 100, Rates())

    model, rules = made()
    (layer,) = compressed_layers(model)
    for step in range(20):
        with torch.no_grad():
            if step < 8:
                layer.originals[0][0, 0] = 0.2 if step % 2 else 0.3
        (model(torch.ones(1, 2)) * 3).sum().backward()
        rules.before_step()
        rules.after_step()
        if step == 11:
            kept = {k: v.clone() for k, v in model.state_dict().items()}, rules.state_dict()
    scale = layer.weight.integers(layer.originals[0])[1].detach()
    assert scale.item() < 0.5
    assert layer.originals[0][0, 0].item() in (0, pytest.approx(scale.item(), abs=1e-7))
    assert rules.telemetry()["codes"]["frozen"] == 0.5
    other, again = made()
    other.load_state_dict(kept[0])
    again.load_state_dict(kept[1])
    assert again.telemetry()["codes"]["frozen"] == 0.5


def test_in_a_run_less_oscillates():
    def run(*rules):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        vq.compress_(model, vq.Recipe({"*": vq.Int2(group=64)}))
        data = [(torch.randn(8, 16), torch.randint(4, (8,))) for _ in range(10)]
        return vq.finetune_(model, data, epochs=6, rates=vq.Rates(rest=2e-2), rules=rules, seed=0)

    told = run(CodeFreezing(threshold_start=0.02, threshold_end=0.005)).rules["codes"]
    assert 0 < told[-1]["frozen"] < 1 and told[-1]["frozen"] > told[0]["frozen"]
    assert "codes" not in run().rules


def test_codes_are_counted_and_never_averaged():
    with pytest.raises(ConfigError, match="vote of codes must be 'majority', not 'ema'"):
        CodeFreezing(vote="ema")
    with pytest.raises(ConfigError, match=r"momentum must be in \(0, 1\], not 0"):
        CodeFreezing(momentum=0)
