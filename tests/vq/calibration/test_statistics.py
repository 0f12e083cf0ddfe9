"""Sums over tokens, in any order, and the errors that they tell."""

import itertools

import pytest
import torch

from vq.calibration.statistics import Statistics, is_finite
from vq.errors import ConfigError


def tokens(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, 4, generator=generator, dtype=torch.float64)


def gathered(x, y=None):
    found = Statistics.empty(4, cross=y is not None, dtype=torch.float64)
    found.add(x, y)
    return found


def test_sums_by_hand():
    x, y = tokens()
    found = gathered(x.reshape(3, 2, 2, 4), y.reshape(3, 2, 2, 4))
    assert found.tokens == 12
    torch.testing.assert_close(found.hessian, x.T @ x)
    torch.testing.assert_close(found.cross, (y - x).T @ x)
    found.add(x.float(), y.float())  # in the sums' own precision
    assert found.tokens == 24
    torch.testing.assert_close(found.hessian, 2 * x.T @ x, rtol=1e-6, atol=1e-6)
    alone = gathered(x)
    assert alone.cross is None
    torch.testing.assert_close(alone.hessian, x.T @ x)


def test_parts_add_up_to_the_whole():
    x, y = tokens()
    whole, parts = gathered(x, y), gathered(x[9:], y[9:])
    for part in (slice(0, 1), slice(1, 9)):
        parts.merge(gathered(x[part], y[part]))
    assert parts.tokens == 12
    torch.testing.assert_close(parts.hessian, whole.hessian)
    torch.testing.assert_close(parts.cross, whole.cross)


def test_orders_of_batches_agree_in_single_precision():
    torch.manual_seed(0)
    batches = torch.randn(4, 50, 8)
    found = []
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 7):
        s = Statistics.empty(8)
        for i in order:
            s.add(batches[i])
        found.append(s.hessian)
    for other in found:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-4)


def test_errors_are_those_of_the_outputs():
    x, y = tokens()
    weight, other = tokens(3, seed=1)
    plain, both = gathered(x), gathered(x, y)
    gap = (x @ (weight - other).T).square().sum() / 12
    assert plain.error(weight, other) == pytest.approx(float(gap))
    assert plain.asymmetric_error(weight, other) == plain.error(weight, other)
    far = (y @ weight.T - x @ other.T).square().sum() / 12
    least = (y @ weight.T - x @ weight.T).square().sum() / 12
    assert both.asymmetric_error(weight, other) == pytest.approx(float(far - least))
    assert both.asymmetric_error(weight, weight) == 0
    assert Statistics.empty(4).error(weight, other) == 0


def test_what_does_not_fit_is_refused_and_changes_nothing():
    s, both = Statistics.empty(4), Statistics.empty(4, cross=True)
    x = torch.ones(2, 4)
    for call, message in (
        (lambda: s.add(torch.ones(2, 5)), r"inputs must be \[\.\.\., 4\], not \[2, 5\]"),
        (lambda: s.add(torch.ones(())), r"inputs must be \[\.\.\., 4\], not \[\]"),
        (lambda: s.add(x, x), "reference must be absent where cross is not gathered"),
        (lambda: both.add(x), "reference must be given where cross is gathered"),
        (
            lambda: both.add(x, x[:1]),
            r"reference must have the inputs' shape \[2, 4\], not \[1, 4\]",
        ),
        (lambda: both.add(x, x / 0), "reference must be finite, not NaN or infinite"),
        (lambda: s.add(x / 0), "inputs must be finite, not NaN or infinite"),
        (lambda: s.merge(Statistics.empty(5)), "statistics must be of 4 inputs, not 5"),
        (lambda: s.merge(both), "statistics must both hold cross or neither"),
        (lambda: Statistics.empty(0), "statistics inputs must be positive, not 0"),
        (lambda: Statistics.empty(4, dtype=torch.half), "statistics dtype must be float32 or"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}"):
            call()
    for untouched in (s, both):
        assert untouched.tokens == 0 and not untouched.hessian.any()
    assert not both.cross.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_is_enough_not_to_be_finite(value):
    values = torch.zeros(5, 3)
    assert is_finite(values) and is_finite(values[:0])
    values[4, 1] = value
    assert not is_finite(values)
