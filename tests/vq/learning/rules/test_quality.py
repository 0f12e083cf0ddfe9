"""The best layers rest, by what they give beside the original's, and learn again in the end."""

import copy
import math

import pytest
import torch
from torch import nn

import vq
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.rates import Rates
from vq.learning.rules.driver import Rules
from vq.learning.rules.quality import Quality, sqnr_db
from vq.learning.rules.steps import Steps


def pair():
    torch.manual_seed(0)
    original = nn.Sequential(*(nn.Linear(12, 12) for _ in range(4)))
    model = copy.deepcopy(original)
    kinds = {"0": vq.Int8(), "1": vq.Int2(group=64), "2": vq.Int4(group=4), "3": vq.Int2(group=64)}
    vq.compress_(model, vq.Recipe(kinds))
    return model, original


def calls(count=2):
    return [(x,) for x in torch.randn(count, 8, 12, generator=torch.Generator().manual_seed(1))]


def rules(model, original, *more, share=0.5, inputs=calls):
    return Rules(model, [Steps(), Quality(share, original, inputs), *more], 10, Rates())


def learning(model):
    return [layer.originals[0].requires_grad for layer in compressed_layers(model)]


def test_the_best_layers_rest_from_the_second_pass_on():
    model, original = pair()
    seen = []
    at_work = rules(model, original, inputs=lambda: seen)
    at_work.start_epoch()
    assert learning(model) == [True] * 4
    seen += calls()
    model.train()
    at_work.start_epoch()
    assert learning(model) == [False, True, True, True] or learning(model).count(False) == 2
    assert learning(model)[0] is False and model.training
    told = at_work.telemetry()["quality"]
    assert told["frozen_layers"] == 2 and told["learning_weights"] == 2 * 144
    assert 0 < told["layer_sqnr_db"] < 60
    frozen = [n for n, learns in enumerate(learning(model)) if not learns]
    model(calls()[0][0]).sum().backward()
    for number, layer in enumerate(compressed_layers(model)):
        own = [*layer.originals, *layer.weight.parameters(recurse=False)]
        assert all((tensor.grad is None) == (number in frozen) for tensor in own)
    other, _ = pair()
    again = rules(other, original)
    again.load_state_dict(at_work.state_dict())
    assert learning(other) == learning(model)
    at_work.close()
    assert learning(model) == [True] * 4
    assert not any(m._forward_hooks for one in (model, original) for m in one.modules())


def test_without_a_share_nothing_rests():
    model, original = pair()
    at_work = rules(model, original, share=0)
    at_work.start_epoch()
    assert learning(model) == [True] * 4
    assert at_work.telemetry()["quality"] == {"frozen_layers": 0, "learning_weights": 4 * 144}


@pytest.mark.parametrize("share", [-0.1, 1])
def test_a_share_must_be_one(share):
    with pytest.raises(ConfigError, match=r"share of layers to freeze must be in \[0, 1\), not"):
        Quality(share, nn.Linear(1, 1), list)


def test_signal_to_noise_is_in_decibels():
    x = torch.ones(100)
    assert sqnr_db(x * 1.1, x) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(x, x) == 200 and sqnr_db(x, torch.zeros(100)) == -200
    assert not math.isnan(sqnr_db(x * 0, x * 0))
