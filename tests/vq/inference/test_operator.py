"""Operators of torch: every dtype, the compiler, export, and the way without kernels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vq.container.samples import coded, samples
from tests.vq.inference.layers import FORMS, inputs_of, same_bits, wanted, weight_of
from vq.errors import ConfigError
from vq.inference import operator
from vq.inference.operator import packed_linear


@pytest.fixture
def weight():
    return weight_of(FORMS["nibbles8"]())


def arguments(weight):
    return weight.tiles, weight.codebook, weight.scale, weight.zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_have_the_dtype_of_inputs(weight, dtype):
    x = torch.randn(2, 3, 130).to(dtype)
    bias = torch.randn(37).to(dtype)
    y = weight.multiply(x, bias)
    assert y.dtype == dtype and y.shape == (2, 3, 37)
    assert torch.equal(y, weight.multiply(x.float(), bias.float()).to(dtype))


def test_no_tokens(weight):
    assert weight.multiply(torch.randn(0, 130), None).shape == (0, 37)
    assert weight.multiply(torch.randn(130), None).shape == (37,)


def test_inputs_need_not_be_contiguous(weight):
    x = torch.randn(130, 4)
    assert torch.equal(weight.multiply(x.T, None), weight.multiply(x.T.contiguous(), None))


def test_what_is_refused(weight):
    with pytest.raises(
        ConfigError, match=r"^inputs of a packed layer must have 130 values, not shape \(2, 9"
    ):
        weight.multiply(torch.randn(2, 9), None)
    with pytest.raises(
        ConfigError, match=r"must be float32, bfloat16 or float16, not torch.float64; cast"
    ):
        weight.multiply(torch.randn(2, 130).double(), None)
    with pytest.raises(
        ConfigError, match=r"^layer 'a': a packed weight has no gradients; call the model"
    ):
        weight.multiply(torch.randn(2, 130, requires_grad=True), None)
    with pytest.raises(
        ConfigError, match=r"^activations must be one of int8, int16, exact, not 'int4'"
    ):
        packed_linear(torch.randn(2, 130), *arguments(weight), None, weight.tiling, "int4")
    with pytest.raises(IndexError, match="rows of a packed layer must be from 0 to 36"):
        weight.rows(torch.tensor([37]))


def test_the_compiler_sees_one_graph(weight):
    compiled = torch.compile(
        lambda x: weight.multiply(x, None) + 1, fullgraph=True, backend="eager"
    )
    x = torch.randn(3, 130)
    assert torch.equal(compiled(x), weight.multiply(x, None) + 1)


def test_the_operators_are_what_torch_asks_of_them(weight):
    x = torch.randn(3, 130)
    tests = ("test_schema", "test_faketensor")
    for name, given_ in (
        ("packed_linear", (x, *arguments(weight), None, weight.tiling, "int8")),
        ("packed_rows", (torch.tensor([[1, 2]]), *arguments(weight), weight.tiling)),
    ):
        torch.library.opcheck(getattr(torch.ops.signbook, name).default, given_, test_utils=tests)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(samples(), st.integers(1, 4), st.sampled_from(["int8", "int16", "exact"]))
def test_without_kernels_the_bits_are_the_same(sample, tokens, activations):
    x = inputs_of(sample, tokens)
    g, weight = sample.layer.geometry, weight_of(sample, activations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "kernels", lambda: None)
        y = weight.multiply(torch.from_numpy(x), None).numpy()
        rows = weight.rows(torch.arange(g.O)).numpy()
    matrix = weight.forward()
    assert torch.equal(matrix, torch.from_numpy(np.ascontiguousarray(sample.weight)))
    assert same_bits(rows, weight.rows(torch.arange(g.O)).numpy())
    if activations == "exact":
        exact = torch.from_numpy(x) @ torch.from_numpy(rows).T
        assert torch.equal(torch.from_numpy(y), exact)
    else:
        assert same_bits(y, wanted(sample, x, None, activations))


def test_other_devices_are_warned_of(weight):
    """The meta device stands for them: it comes as far as the fake implementation."""
    operator._warn.cache_clear()
    with pytest.warns(
        UserWarning, match="^packed layers have no kernels on xpu: they are decoded at"
    ):
        operator._warn("xpu")
    operator._warn.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_it_is_slow_but_right():
    sample = coded(shape=(37, 130), d=8, k=16, scales="output")
    x = torch.from_numpy(inputs_of(sample, 3))
    weight = weight_of(sample)
    y = weight.multiply(x, None)
    operator._warn.cache_clear()
    with pytest.warns(UserWarning, match="packed layers have no kernels on cuda"):
        found = weight.cuda().multiply(x.cuda(), None)
    assert torch.equal(found.cpu(), y)
