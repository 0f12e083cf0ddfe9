"""Which layer's rounding costs most at the output, one at a time."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from vq.errors import ConfigError
from vq.learning.alone import sqnr_alone


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))


def test_the_layer_that_loses_most_comes_first():
    net, x = model().train(), torch.randn(9, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rounded = {"0": net[0].weight.detach() * 1.001, "2": net[2].weight.detach() * 0.5}
    found = sqnr_alone(net, rounded, [x[:4], (x[4:],)])
    assert list(found) == ["2", "0"] and found["2"] < 15 < 45 < found["0"]
    assert all(torch.equal(value, before[n]) for n, value in net.state_dict().items())
    assert net.training


def test_what_cannot_be_measured_is_refused():
    net = model()
    with pytest.raises(ConfigError, match="on at least one call, not none"):
        sqnr_alone(net, {}, [])
    parametrizations.weight_norm(net[0])
    with pytest.raises(ConfigError, match="'0': weight must be a plain parameter to replace"):
        sqnr_alone(net, {"0": torch.zeros(6, 6)}, [torch.zeros(1, 6)])
