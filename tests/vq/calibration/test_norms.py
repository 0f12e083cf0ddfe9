"""Batch norms that are measured again."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches, unchanged
from vq import SSVQ, Recipe
from vq.calibration.norms import reestimate_norms_
from vq.errors import ConfigError


def test_norms_are_measured_again_after_compression():
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=4)}), calibration=batches())
    inputs = torch.cat([x for x, _ in batches()])
    seen = []
    model.norm.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    with torch.no_grad():
        model.eval()(inputs)
    torch.testing.assert_close(model.norm.running_mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
    assert model.norm.momentum == 0.1
    assert reestimate_norms_(nn.Linear(2, 2), batches()) == 0


def test_norms_come_back_if_the_data_are_bad():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    bad = [torch.full((4, 16), float("nan"))]
    with pytest.raises(ConfigError, match=r"^calibration data must give finite running_mean"):
        reestimate_norms_(model, bad)
    unchanged(model, before)
    assert model.norm.momentum == 0.1 and model.training
