"""The target of noise predictors is that of the diffusion transformer, and of variance 1."""

import pytest
import torch
from torch import nn

from signbook.zoo.ddpm import noised, signal_share
from signbook.zoo.dit import DiT
from signbook.zoo.preconditioned import noise_of, waves


@torch.no_grad()
@pytest.mark.parametrize("rest", [0.0, 0.75])
def test_the_diffusion_transformer_has_the_same(rest):
    """It keeps a copy of its own, for a file that changes is another model in the cache."""
    model = DiT(8, patch=2, width=16, depth=1)
    nn.init.constant_(model.out.bias, rest)
    noisy, step = torch.randn(3, 1, 8, 8), torch.tensor([1, 400, 1000])
    found = noise_of(torch.full_like(noisy, rest), noisy, signal_share()[step])
    torch.testing.assert_close(found, model(noisy, step, step % 11))
    torch.testing.assert_close(model.position[:4, 8:], waves(torch.arange(4), 8))


@pytest.mark.parametrize("place", [1, 300, 700, 1000])
def test_what_is_left_is_of_variance_one_and_in_no_pixel(place):
    """For pixels of the variance that is assumed."""
    clean, noise = torch.randn(2, 4000, 1, 4, 4)
    step = torch.full((4000,), place)
    noisy, left = noised(clean / 2, step, noise), signal_share()[step]
    guess = noise_of(torch.zeros_like(noisy), noisy, left)
    unit = noise_of(torch.ones_like(noisy), noisy, left) - guess
    rest = (noise - guess) / unit
    assert float(rest.var()) == pytest.approx(1, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([rest.flatten(), noisy.flatten()]))[0, 1])) < 0.02
