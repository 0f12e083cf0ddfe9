"""Integers of a layer: biases outweigh nothing, and products are what they were."""

import numpy as np
import pytest

from vq.integer.fixed import ACCUMULATOR_MAX
from vq.integer.golden import Parameters, reach
from vq.integer.numbers import with_numbers

PRODUCTS = Parameters(
    np.empty(0, np.int16), np.empty(0, np.uint8), weight=np.array([[3, -4], [0, 1]], np.int8)
)


def test_a_step_of_the_sums_becomes_a_multiplier_and_a_shift():
    p = with_numbers(PRODUCTS, reach(PRODUCTS), np.array([0.5, -0.125]), np.array([3.0, 1.0]), 2.0)
    assert (p.multiplier / 2.0**p.shift).tolist() == [0.25, -0.0625]
    assert p.bias.tolist() == [6, -8]
    assert p.weight is PRODUCTS.weight


def test_a_bias_beyond_all_products_still_fits():
    p = with_numbers(PRODUCTS, reach(PRODUCTS), np.array([1e-12, 0.0]), np.array([5.0, -5.0]), 1.0)
    assert (np.abs(p.bias) + reach(p) <= ACCUMULATOR_MAX).all()
    found = p.bias * (p.multiplier / 2.0**p.shift)
    assert np.allclose(found, [5, -5], rtol=1e-3)


def test_a_step_too_large_for_a_multiplier_is_refused():
    with pytest.raises(ValueError, match=r"at most 16383\.5"):
        with_numbers(PRODUCTS, reach(PRODUCTS), np.array([1e6, 1.0]), np.zeros(2), 1.0)
