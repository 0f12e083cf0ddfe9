"""Rounding as a part of the model: by token as everywhere else, or on one grid for all tokens."""

import pytest
import torch
from torch import nn

from vq.activations.rounding import Rounding, on_scale, searched_scale
from vq.activations.runtime import attach, unrounded
from vq.activations.tokens import ActivationQuantizer, round_tokens
from vq.errors import ConfigError


def test_tokens_have_their_own_grids_and_a_scale_is_for_all():
    x = torch.randn(3, 4, 8)
    by_token = Rounding(4, symmetric=False, clip=0.9)
    assert torch.equal(by_token.apply(x), round_tokens(x, 4, symmetric=False, clip=by_token.clip))
    static = Rounding(3, scale=torch.tensor([0.5]))
    given = torch.tensor([[-9.0, -0.3, 0.2, 0.3, 9.0]])
    assert static.apply(given).tolist() == [[-2.0, -0.5, 0.0, 0.5, 1.5]]
    assert static.apply(given.bfloat16()).dtype == torch.bfloat16


def test_gradients_pass_within_a_shared_grid():
    x = torch.tensor([-9.0, 0.2, 9.0], requires_grad=True)
    on_scale(x, torch.tensor([0.5]), 3).sum().backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_transforms_of_torch_func_see_the_same_gradients():
    x, scale = torch.randn(3, 5), torch.tensor([0.5])

    def rounded(row):
        return on_scale(row, scale, 3)

    each = torch.func.vmap(torch.func.grad(lambda row: rounded(row).square().sum()))(x)
    x.requires_grad_()
    rounded(x).square().sum().backward()
    assert torch.equal(each, x.grad) and each.any()
    slopes = torch.func.jacrev(rounded)(torch.tensor([-9.0, 0.2, 9.0]))
    assert torch.equal(slopes, torch.diag(torch.tensor([0.0, 1.0, 0.0])))


def test_a_searched_scale_is_the_best_of_those_tried():
    torch.manual_seed(0)
    samples = [torch.randn(64, 8), 3 * torch.randn(64, 8)]
    samples[0][0, 0] = 40  # one that is better cut
    scale = searched_scale(samples, 4)

    def error(scale):
        return sum(float((on_scale(x, scale, 4) - x).square().sum()) for x in samples)

    peak = torch.tensor([40 / 7])
    tried = [error(peak * (1 - 0.02 * i)) for i in range(46)]
    assert error(scale) == pytest.approx(min(tried)) and float(scale) < float(peak) / 2
    assert torch.equal(searched_scale([torch.zeros(3, 8)], 4), torch.ones(1))


def test_roundings_can_rest_and_are_not_doubled():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    x = torch.randn(5, 8)
    plain = model(x)
    attach(model, Rounding(2), ["1"])
    rounded = model(x)
    assert not torch.equal(rounded, plain)
    with unrounded(model):
        assert torch.equal(model(x), plain)
    assert torch.equal(model(x), rounded)
    with pytest.raises(ConfigError, match="must not be rounded already, as those of 1 are"):
        ActivationQuantizer(model, ["0", "1"])


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="activation bits must be 2 to 8, not 9"):
        Rounding(9)
    with pytest.raises(ConfigError, match=r"activation clip must be in \(0, 1\], not 0"):
        Rounding(4, clip=0)
