"""The selective scan against a plain loop in float64."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import softplus

from signbook.zoo.scan import selective_scan
from vq.errors import ConfigError

ORDER = ("x", "dt", "A", "B", "C", "D")


def case(rows=2, length=7, width=3, states=4, seed=0):
    """Inputs in the order of the arguments, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        normal(rows, length, width),
        softplus(normal(rows, length, width)),
        -normal(width, states).exp(),
        normal(rows, length, states),
        normal(rows, length, states),
        normal(width),
    ]


def step_by_step(x, dt, A, B, C, D):
    """The recurrence as it is written."""
    y = torch.empty_like(x)
    for row in range(x.shape[0]):
        h = torch.zeros_like(A)
        for t in range(x.shape[1]):
            step = dt[row, t][:, None]
            h = torch.exp(step * A) * h + step * B[row, t][None] * x[row, t][:, None]
            y[row, t] = h @ C[row, t] + D * x[row, t]
    return y


def in_float32(inputs):
    return [tensor.float() for tensor in inputs]


sizes = st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(1, 13), st.integers(0, 99))
def test_any_chunk_gives_what_the_loop_gives(shape, chunk, seed):
    inputs = case(*shape, seed=seed)
    wanted = step_by_step(*inputs)
    torch.testing.assert_close(selective_scan(*inputs, chunk=chunk), wanted)
    single = selective_scan(*in_float32(inputs), chunk=chunk)
    torch.testing.assert_close(single, wanted.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 3, 9])
def test_gradients(chunk):
    inputs = [tensor.requires_grad_() for tensor in case(2, 5, 2, 3)]
    assert torch.autograd.gradcheck(partial(selective_scan, chunk=chunk), inputs)


def test_gradients_in_float32():
    inputs = case(3, 20, 5, 4)
    step = torch.randn(3, 20, 5, dtype=torch.float64)
    found = []
    for chosen, chunk in ((inputs, 1), (in_float32(inputs), 8)):
        leaves = [tensor.requires_grad_() for tensor in chosen]
        y = selective_scan(*leaves, chunk=chunk)
        found.append(torch.autograd.grad(y, leaves, step.to(y.dtype)))
    for double, single in zip(*found, strict=True):
        torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8), st.integers(1, 10))
def test_no_output_sees_what_comes_behind_it(changed, chunk):
    x, *rest = case(length=9)
    before = selective_scan(x, *rest, chunk=chunk)
    x = x.clone()
    x[:, changed] += 1
    after = selective_scan(x, *rest, chunk=chunk)
    assert torch.equal(after[:, :changed], before[:, :changed])
    assert (after[:, changed:] != before[:, changed:]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 10))
def test_rows_do_not_see_each_other(row, chunk):
    inputs = case(5, 9)
    alone = [t[row : row + 1] if t.ndim == 3 else t for t in inputs]
    spoilt = [t.clone() for t in inputs]
    for tensor in (t for t in spoilt if t.ndim == 3):
        tensor[torch.arange(5) != row] = torch.nan
    for other in (inputs, spoilt):
        mine = selective_scan(*other, chunk=chunk)[row]
        torch.testing.assert_close(mine, selective_scan(*alone, chunk=chunk)[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("step", [1e-30, 1.0, 1e4, 1e30])
def test_steps_of_any_length_are_safe(step):
    """Decays of one and of zero: products of them underflow, and nothing is divided by them."""
    x, dt, *rest = case(1, 40)
    dt = torch.rand_like(dt) * step
    wanted = step_by_step(x, dt, *rest)
    singles = [tensor.requires_grad_() for tensor in in_float32([x, dt, *rest])]
    y = selective_scan(*singles)
    assert (y - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.mean(), singles))


def test_types_below_float32_are_computed_in_float32():
    inputs = [tensor.bfloat16() for tensor in case()]
    wanted = selective_scan(*in_float32(inputs)).bfloat16()
    assert torch.equal(selective_scan(*inputs), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        single = selective_scan(*in_float32(inputs))
    assert single.dtype == torch.float32 and torch.equal(single.bfloat16(), wanted)


@pytest.mark.parametrize("name", ["dt", "B", "C", "D"])
def test_shapes_that_do_not_fit(name):
    inputs = dict(zip(ORDER, case(), strict=True))
    inputs[name] = inputs[name][..., :1]
    message = rf"^{name} must be \[.*\] beside x \[2, 7, 3\] and A \[3, 4\], not \[.*1\]$"
    with pytest.raises(ConfigError, match=message):
        selective_scan(**inputs)


def test_channels_that_do_not_fit():
    x, dt, A, *rest = case()
    with pytest.raises(ConfigError, match=r"^A must be \[3, 4\] beside x .*, not \[2, 4\]$"):
        selective_scan(x, dt, A[:2], *rest)


def test_ranks_that_do_not_fit():
    x, *rest = case()
    with pytest.raises(ConfigError, match=r"^x must be \[B, L, E\] and A \[E, N\], not \[7, 3\]"):
        selective_scan(x[0], *rest)


def test_sequence_without_steps():
    x, dt, A, B, C, D = case()
    empty = (x[:, :0], dt[:, :0], A, B[:, :0], C[:, :0], D)
    with pytest.raises(ConfigError, match="sequence must have at least one step, not 0"):
        selective_scan(*empty)


def test_chunk_without_steps():
    with pytest.raises(ConfigError, match="chunk must be at least 1 step, not 0"):
        selective_scan(*case(), chunk=0)
