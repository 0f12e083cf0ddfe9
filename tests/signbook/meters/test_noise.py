"""Predicted noise."""

import pytest
import torch

from signbook.evaluation import evaluate
from signbook.tasks import Denoising
from tests.signbook.meters.tables import Table
from vq.errors import ConfigError


def test_eps_mse_is_over_all_values():
    noise = [torch.randn(2, 1, 3, 3), torch.randn(1, 1, 3, 3)]
    rows = torch.randn(3, 1, 3, 3)
    task = Denoising([((torch.tensor([0, 1]),), noise[0]), ((torch.tensor([2]),), noise[1])])
    expected = float((rows - torch.cat(noise)).square().mean())
    result = evaluate(Table(rows), task, reference=Table(torch.cat(noise)))
    assert result.metrics == {"eps_mse": pytest.approx(expected)}
    assert result.reference == {"eps_mse": 0}


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (torch.zeros(3, 4), r"predicted noise must be \[3, 4\], not \[3, 2\]$"),
        (torch.zeros(3, 2).long(), "noise must be floating point, not int64$"),
        (torch.full((3, 2), torch.inf), "noise must be finite, not NaN or infinite$"),
    ],
)
def test_noise_that_does_not_fit(noise, message):
    task = Denoising([(torch.arange(3), noise)])
    with pytest.raises(ConfigError, match=rf"^evaluation batch 1, .*: {message}"):
        evaluate(Table(torch.zeros(3, 2)), task)
