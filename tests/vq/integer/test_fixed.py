"""Multiplier and shift: exact rules, error bounds, extremes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vq.container.samples import PROPERTY
from vq.integer import requantize, to_fixed
from vq.integer.fixed import ACCUMULATOR_MAX, MULTIPLIER_MAX, SHIFT_MAX

RATIOS = st.floats(2.0**-60, MULTIPLIER_MAX / 2) | st.floats(-MULTIPLIER_MAX / 2, -(2.0**-60))


def test_known_values():
    multiplier, shift = to_fixed(np.array([1.0, 0.5, -0.3, 0.0, MULTIPLIER_MAX / 2, 2**-47, 1e-30]))
    assert multiplier.tolist() == [2**14, 2**14, -19661, 0, MULTIPLIER_MAX, 1, 0]
    assert shift.tolist() == [14, 15, 16, 1, 1, 47, 47]
    multiplier, shift = to_fixed(np.array([0.9, -0.01]), shared=True)
    assert (multiplier.tolist(), shift.tolist()) == ([29491, -328], [15])
    multiplier, shift = to_fixed(np.array([1 - 2.0**-17]))  # rounds up to 2**15
    assert (multiplier.tolist(), shift.tolist()) == ([2**14], [14])


@pytest.mark.parametrize("ratio", [np.nan, np.inf, 2.0**14])
def test_impossible_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match=r"ratio must be finite and at most 16383\.5"):
        to_fixed(np.array([0.5, ratio]))


@PROPERTY
@given(st.lists(RATIOS, min_size=1, max_size=5))
def test_error_is_bounded(ratios):
    ratio = np.array(ratios)
    multiplier, shift = to_fixed(ratio)
    assert np.abs(multiplier.astype(int)).max() <= MULTIPLIER_MAX
    assert 1 <= shift.min() and shift.max() <= SHIFT_MAX
    error = np.abs(multiplier / 2.0**shift - ratio)
    assert (error <= np.maximum(np.abs(ratio) * 2.0**-15, 2.0**-48)).all()


@PROPERTY
@given(
    st.integers(-ACCUMULATOR_MAX, ACCUMULATOR_MAX),
    st.integers(-MULTIPLIER_MAX, MULTIPLIER_MAX),
    st.integers(1, SHIFT_MAX),
    st.booleans(),
)
def test_requantisation_is_that_of_unbounded_integers(accumulator, multiplier, shift, relu):
    want = (accumulator * multiplier + 2 ** (shift - 1)) // 2**shift
    found = requantize(
        np.array([accumulator]), np.array([multiplier], np.int16),
        np.array([shift], np.uint8), relu=relu,
    )  # fmt: skip
    assert found.tolist() == [max(0 if relu else -128, min(127, want))]
    assert -(2**47) <= accumulator * multiplier + 2 ** (shift - 1) < 2**47
