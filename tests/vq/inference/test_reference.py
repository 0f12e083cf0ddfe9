"""The meaning of multiplying by packed weights: rounding, its limits, and how near it is."""

import numpy as np
import pytest

from vq.inference.reference import DIGIT, grouped_linear, linear, rounded


@pytest.mark.parametrize(("activations", "most"), [("int8", 127), ("int16", 32512)])
def test_the_greatest_activation_is_the_greatest_whole_number(activations, most):
    x = np.array([[0.5, -2.0, 1.0], [0, 0, 0], [1e-45, 0, -1e-45], [3e38, -3.4e38, 0]], np.float32)
    whole, step = rounded(x, activations)
    assert whole[0].tolist() == [round(most / 4), -most, round(most / 2)]
    assert whole[1].tolist() == [0, 0, 0]
    assert abs(whole[3]).max() == most
    assert np.isfinite(step).all() and (step > 0).all()
    assert (abs(whole * step.astype(float) - x) <= step / 2 * 1.001).all()


def test_ties_go_to_the_even_number():
    whole, _ = rounded(np.array([[127, 0.5, 1.5, -2.5]], np.float32))
    assert whole.tolist() == [[127, 0, 2, -2]]


def test_digits_of_16_bits_are_whole_numbers_of_8():
    whole = np.arange(-32512, 32513)
    high = np.rint(whole.astype(np.float32) * np.float32(1 / DIGIT)).astype(int)
    assert abs(high).max() == 127 and abs(whole - DIGIT * high).max() == 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_token_that_is_not_finite_gives_nan(bad):
    x = np.ones((2, 3), np.float32)
    x[1, 2] = bad
    y = linear(x, np.ones((4, 3), np.int8), np.ones(1, np.float32), np.ones(4, np.float32))
    assert (y[0] == 4).all() and np.isnan(y[1]).all()


@pytest.mark.parametrize(("activations", "error"), [("int8", 0.02), ("int16", 1e-4)])
def test_it_is_near_the_product_of_what_was_given(activations, error):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 96)).astype(np.float32)
    integers = rng.integers(-127, 128, (7, 96)).astype(np.int8)
    scale = rng.random(7).astype(np.float32)
    for y, weight in (
        (linear(x, integers, scale, None, activations), integers * scale[:, None]),
        (
            grouped_linear(
                x, integers, np.repeat(scale[:, None], 3, 1).astype(np.float16), 32, None,
                activations,
            ),
            integers * scale[:, None].astype(np.float16).astype(float),
        ),
    ):  # fmt: skip
        exact = x.astype(float) @ weight.T.astype(float)
        assert np.linalg.norm(y - exact) < error * np.linalg.norm(exact)
