"""What the squared errors that clustering minimises weigh."""

import numpy as np
import torch

from vq import SSVQ
from vq.formats.points import costs_of, root_mean_square


def layer_costs(method, shape, importance=None):
    geometry = method.geometry("a", "linear", shape)
    weight = torch.randn(shape) * torch.arange(1, shape[0] + 1)[:, None]
    unit = root_mean_square(weight, geometry, method.scale == "output")
    return costs_of([geometry], [importance], [unit]), unit


def test_layers_without_filling_or_importance_weigh_nothing():
    assert layer_costs(SSVQ(d=4, k=4), (6, 8))[0] is None


def test_filling_weighs_nothing_and_everything_else_alike():
    costs, _ = layer_costs(SSVQ(d=4, k=4), (6, 10))
    expected = np.ones((6, 3, 4), np.float32)
    expected[:, 2, 2:] = 0
    assert np.array_equal(costs, expected.reshape(-1, 4))


def test_importance_is_that_of_errors_in_the_weight_itself():
    """Sub-vectors are in units of their row, so an error of a large row counts by its unit."""
    importance = torch.rand(6, 8) + 0.1
    costs, unit = layer_costs(SSVQ(d=4, k=4, scale="output"), (6, 8), importance)
    expected = (importance * unit.square()[:, None]).numpy()
    expected = expected / expected.mean()
    np.testing.assert_allclose(costs, expected.reshape(-1, 4), rtol=1e-5)
