"""Batch norms that are measured again."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches, unchanged
from vq import SSVQ, Recipe
from vq.calibration.norms import Norms, reestimate_norms_, warn_of_norms
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


class Twice(nn.Module):
    """A norm that runs on two inputs, and some that are not to be measured."""

    def __init__(self):
        super().__init__()
        self.shared, self.cumulative = nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None)
        self.frozen, self.unread = nn.BatchNorm1d(4, momentum=0), nn.BatchNorm1d(4)
        self.bare = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        return self.bare(self.frozen(self.cumulative(self.shared(x) + self.shared(2 * x + 1))))


def test_norms_that_keep_none_or_stand_still_or_see_nothing_stay():
    model, x = Twice(), torch.randn(64, 4)
    before = copy.deepcopy(model.state_dict())
    assert reestimate_norms_(model, [x[:32], x[32:]]) == 3
    twice = torch.cat([x, 2 * x + 1])
    torch.testing.assert_close(model.shared.running_mean, twice.mean(0))
    assert model.shared.num_batches_tracked == 4
    assert model.cumulative.momentum is None and model.cumulative.num_batches_tracked == 2
    unchanged(model, {n: v for n, v in before.items() if n.startswith(("frozen", "unread"))})
    with pytest.warns(UserWarning, match=r"^batch norms must be measured again .* the 3 of this"):
        warn_of_norms(model)


def test_one_value_of_a_feature_has_no_variance():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ConfigError,
        match=r"^calibration batch 2, float32 \[1, 16\], must be larger: batch norm 'norm' is .*; "
        r"or leave norms as they are \(norms=False, --no-norms\)$",
    ):
        reestimate_norms_(model, [torch.randn(2, 16), torch.randn(1, 16)])
    unchanged(model, before)


def test_statistics_as_given_and_those_that_are_kept():
    model = Net()
    norms = Norms(model)
    before = copy.deepcopy(model.state_dict())
    with norms.kept():
        norms.measure_(lambda: model(torch.randn(8, 16)))
        mean = model.norm.running_mean.clone()
        with norms.as_given():
            unchanged(model, before)
        assert torch.equal(model.norm.running_mean, mean) and mean.any()
    unchanged(model, before)
    assert norms.within(model) and not norms.within(model.fc1)
