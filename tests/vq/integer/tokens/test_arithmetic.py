"""Integer rules against real numbers: every error that their texts state."""

import numpy as np
import pytest

from vq.integer.tokens.arithmetic import (
    WIDE_MAX,
    exponentials,
    interpolated,
    lengths_of,
    mean_of_rows,
    normalised,
    reciprocal,
    rescaled,
    rotated,
    saturated,
    shares,
    to_rows,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def wide(rng, *shape, most=WIDE_MAX):
    return rng.integers(-most, most + 1, shape)


def test_lengths_are_those_of_python(rng):
    values = rng.integers(1, 2**62 - 1, 500) >> rng.integers(0, 62, 500)
    values = np.maximum(values, 1)
    assert lengths_of(values).tolist() == [int(v).bit_length() for v in values]


def test_a_reciprocal_is_a_multiplier_and_at_most_a_little_too_small(rng):
    values = np.concatenate([np.arange(1, 5000), rng.integers(1, 2**47, 500)])
    r, n = reciprocal(values)
    assert r.min() >= 2**14 and r.max() < 2**15
    ratio = r / np.exp2(14 + n) * values
    assert ratio.max() <= 1 and ratio.min() >= 1 - 2**-14


def test_a_shift_below_one_goes_left():
    assert rescaled(np.array([5, -5]), 3, [-2]).tolist() == [60, -60]
    assert rescaled(np.array([5, -5]), 3, [0]).tolist() == [15, -15]
    assert rescaled(np.array([5, -5]), 3, [1]).tolist() == [8, -7]


def test_formats_saturate():
    values = np.array([-40000, -200, 200, 40000])
    assert saturated(values * 2**15, "int32").tolist() == [1 - 2**27, -6553600, 6553600, 2**27 - 1]
    assert saturated(values, "int8").tolist() == [-128, -128, 127, 127]
    assert saturated(values, "int16").tolist() == [-32639, -200, 200, 32639]
    high = (WIDE_MAX + 128) >> 8
    assert high == 127 and WIDE_MAX - 256 * high == 127  # two digits of int8


@pytest.mark.parametrize("most", [0, 1, 5, 300, WIDE_MAX])
def test_rows_have_their_greatest_magnitude_as_factor(rng, most):
    values = wide(rng, 40, 33, most=most)
    rows = to_rows(values)
    peak = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1)
    assert np.array_equal(rows.factor / np.exp2(rows.shift), peak / 2**15)
    assert rows.factor.min() >= 2**14 and rows.factor.max() < 2**15
    assert np.abs(rows.codes - values * 127 / peak).max() <= 0.51
    assert np.abs(rows.codes).max() == (127 if most else 0)


@pytest.mark.parametrize("multiplier,shift", [(32767, 20), (18000, 8), (1, 1)])
def test_exponentials_are_within_what_they_say(rng, multiplier, shift):
    scores, valid = wide(rng, 20, 70), rng.random((20, 70)) < 0.8
    valid[:, 0] = True
    found = exponentials(scores, valid, multiplier, shift)
    greatest = np.where(valid, scores, -(10**9)).max(axis=-1, keepdims=True)
    real = np.where(valid, np.exp2(15 - (greatest - scores) * multiplier / 2**shift / 256), 0)
    assert (np.abs(found - real) <= 1.5 + 0.0015 * real).all()
    assert found[valid].max() == 2**15 and found[~valid].max() == 0


@pytest.mark.parametrize("form", ["rows", "int16"])
def test_shares_add_up_to_one(rng, form):
    powers = (2**15 * rng.random((50, 300)) ** rng.integers(1, 40, (50, 1))).astype(np.int64)
    powers[:, 0] = 2**15
    found = shares(powers, form)
    if form == "rows":
        real = found.codes * found.factor / np.exp2(found.shift) / 128
        assert 0 <= found.codes.min() and found.codes.max() == 127
        assert np.abs(real.sum(axis=-1) - 1).max() < 2**-13
    else:
        real = found / 2**14
        assert np.abs(real - powers / powers.sum(axis=-1, keepdims=True)).max() < 2**-13


@pytest.mark.parametrize("count", [1, 3, 64, 768])
@pytest.mark.parametrize("most", [1, 127, WIDE_MAX])
@pytest.mark.parametrize("centred", [False, True])
def test_norms_are_within_what_they_say(rng, count, most, centred):
    values = wide(rng, 60, count, most=most) // rng.integers(1, 9, (60, 1))
    epsilon = 7
    found = normalised(values, epsilon, centred=centred)
    off = values - values.mean(axis=-1, keepdims=True) if centred else values.astype(float)
    variance = np.square(off).mean(axis=-1, keepdims=True)
    real = off / np.sqrt(variance + epsilon / count**2) * 2**18
    assert (np.abs(found - real) <= 1 + 2**-13 * np.abs(real)).all()
    assert np.abs(found).max() <= 2**18 * np.sqrt(count) * (1 + 2**-13) + 1


def test_a_row_with_a_massive_channel_keeps_15_bits(rng):
    values = wide(rng, 20, 64, most=3000)
    values[:10, 5] = 2**26 + 12345
    found = normalised(values, 2**40, centred=False)
    real = values / np.sqrt(np.square(values.astype(float)).mean(-1, keepdims=True) + 2**40 / 64**2)
    assert np.abs(found - real * 2**18)[:10].max() <= 2**18 * 8 * 2**-13
    near = np.abs(found - real * 2**18)[10:] <= 1 + 2**-13 * np.abs(real[10:] * 2**18)
    assert near.all()


def test_a_row_of_zeros_stays_zero():
    assert not normalised(np.zeros((2, 8), np.int64), 1, centred=True).any()
    assert not to_rows(np.zeros((2, 8), np.int64)).codes.any()


@pytest.mark.parametrize("form", ["int8", "int16"])
def test_functions_are_straight_between_entries(rng, form):
    grid = np.arange(-128, 129) * 256 / 4096
    table = np.rint(2000 * np.tanh(grid)).astype(np.int64)
    values = wide(rng, 4000)
    found = interpolated(values, table, form)
    real = 2000 * np.tanh(values / 4096) / (1 if form == "int16" else 256)
    assert np.abs(found - real).max() <= (2.1 if form == "int16" else 0.51)
    exact = interpolated((np.arange(256) - 127)[:254] * 256, table, "int16")
    assert np.array_equal(exact, table[1:255])


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
def test_rotations_turn_pairs(rng, pairs):
    values, angles = wide(rng, 5, 8), rng.uniform(0, 6, (5, 4))
    cosines, sines = (np.rint(2**14 * f(angles)).astype(np.int64) for f in (np.cos, np.sin))
    found = rotated(values, cosines, sines, pairs) / 2**14
    parts = [(0, 1), (2, 3)] if pairs == "adjacent" else [(0, 4), (1, 5)]
    for at, (i, j) in enumerate(parts):
        turned = (values[:, i] + 1j * values[:, j]) * np.exp(1j * angles[:, at])
        assert np.abs(found[:, i] + 1j * found[:, j] - turned).max() < 3


def test_means_leave_out_what_is_not_valid(rng):
    values, lengths = wide(rng, 4, 9, 6), np.array([1, 4, 7, 9])
    found = mean_of_rows(values, np.arange(9) < lengths[:, None])
    for row, length in enumerate(lengths):
        real = 256 * values[row, :length].mean(axis=0)
        assert (np.abs(found[row, 0] - real) <= 1 + np.abs(real) * 2**-13).all()
