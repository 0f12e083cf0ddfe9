"""Errors relative to what is wanted: their mean, or a weighted sum."""

import pytest
import torch

from vq.learning.goal import Goal

WANTED = [[torch.ones(4), 2 * torch.ones(3)], [-torch.ones(4), torch.zeros(3)]]


def test_errors_are_in_units_of_the_mean_square_over_all_batches():
    goal = Goal(WANTED)
    assert goal.values == 14
    assert goal.error(WANTED[0], 0) == 0
    off = [torch.zeros(4), torch.zeros(3)]
    assert goal.error(off, 0) == pytest.approx((1 / 1 + 4 / 2) / 2)
    assert goal.error(off, 1) == pytest.approx((1 / 1 + 0) / 2)


def test_weighted_errors_add_up():
    off = [torch.zeros(4), torch.zeros(3)]
    assert Goal(WANTED, (0.5, 3.0, 7.0)).error(off, 0) == pytest.approx(0.5 * 1 + 3 * 2)


def test_what_is_all_zero_counts_as_it_is():
    assert Goal([[torch.zeros(2)]]).error([torch.full((2,), 3.0)], 0) == 9
