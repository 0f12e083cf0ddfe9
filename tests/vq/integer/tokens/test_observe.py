"""Peaks of what flows, without padding, and models that do not compute the same."""

import pytest
import torch
from torch import nn

from vq.errors import ConfigError
from vq.integer.tokens.observe import INPUT, observed
from vq.integer.tokens.trace import Call


class Plain(nn.Module):
    def forward(self, x, mask=None):
        y = x * 2
        return y + 1 if len(x) < 3 else y


def call(values, mask=None):
    return Call((values,), {}, values, mask)


def test_peaks_are_the_greatest_of_all_batches():
    calls = [call(torch.full((2, 3, 4), v)) for v in (1.0, -5.0)]
    peaks = observed(Plain(), calls, [INPUT, 0, 1], "max", False)
    assert peaks.greatest == peaks.chosen == {INPUT: 5.0, 0: 10.0, 1: 9.0}


def test_padding_does_not_count():
    values, mask = torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    values[0, 2] = 100
    assert observed(Plain(), [call(values, mask)], [0], "max", False).greatest == {0: 2.0}


def test_what_saturates_may_be_less():
    values = torch.cat([torch.full((1, 1, 999), 1.0), torch.full((1, 1, 1), 50.0)], -1)
    peaks = observed(Plain(), [call(values)], [0], "mse", False)
    assert peaks.chosen[0] < peaks.greatest[0] == 100.0


def test_calibration_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="must hold at least one batch, not none"):
        observed(Plain(), [], [0], "max", False)
    with pytest.raises(ConfigError, match="batch 2: model must compute the same for all inputs"):
        both = [call(torch.ones(2, 3, 4)), call(torch.ones(3, 3, 4))]
        observed(Plain(), both, [0, 1], "max", False)
    with pytest.raises(ConfigError, match="all values of the model are finite"):
        observed(Plain(), [call(torch.full((1, 2, 2), torch.inf))], [0], "max", False)
