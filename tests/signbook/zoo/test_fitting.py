"""The loop that trains from scratch."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from signbook.zoo.fitting import fit
from vq.errors import TrainingError


def line():
    """Batches of a linear function, and what is to learn it."""
    x = torch.randn(4, 8, 3)
    return nn.Linear(3, 1).train(), [(part, part.sum(1, keepdim=True)) for part in x]


@torch.no_grad()
def error(model, batches):
    return sum(float(mse_loss(model(x), y)) for x, y in batches)


def test_learns_and_ends_in_evaluation_mode():
    model, batches = line()
    before = error(model, batches)
    assert fit(model, batches, mse_loss, epochs=60, rate=0.1) is model
    assert error(model, batches) < 0.01 * before and not model.training


def test_gradients_are_clipped():
    """Adam does not see the size of gradients, but their ratio from step to step."""
    model, batches = line()
    batches = [(x, y * scale) for (x, y), scale in zip(batches, (1, 10, 100, 1000), strict=True)]
    found = []
    for clip in (None, 1e9, 1.0):
        torch.manual_seed(1)
        model.reset_parameters()
        fit(model, batches, mse_loss, epochs=1, rate=0.1, clip=clip)
        found.append(model.weight.detach().clone())
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_loss_that_is_not_finite(bad):
    model, batches = line()
    batches[2] = (batches[2][0] * bad, batches[2][1])
    match = r"loss must be finite, not nan in pass 1; look for NaN .* learning rate of 0\.1"
    with pytest.raises(TrainingError, match=match):
        fit(model, batches, mse_loss, epochs=1, rate=0.1)
    assert model.weight.isfinite().all()
