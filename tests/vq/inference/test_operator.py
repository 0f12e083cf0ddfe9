"""Operators of torch: every dtype, the compiler, export, and the way without kernels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vq.container.samples import samples
from tests.vq.inference.layers import FORMS, inputs_of, same_bits, wanted, weight_of
from vq.errors import ConfigError
from vq.inference import operator
from vq.inference.operator import packed_linear
from vq.inference.tiles import Tiling


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
    for multiply in (operator._linear, operator._gpu_linear):
        x = torch.empty(2, 130, device="meta")
        with pytest.raises(
            ConfigError,
            match=r"^inputs of a packed layer must be on its device, cpu, not on meta; mo",
        ):
            multiply(x, *arguments(weight), None, weight.tiling, "int8")
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
        patch.setattr(operator, "kernels_for", lambda t: None)
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


@pytest.fixture
def untried():
    """A process that has tried no device yet."""
    for cached in (operator._runs_programs, operator._warn):
        cached.cache_clear()
    yield
    for cached in (operator._runs_programs, operator._warn):
        cached.cache_clear()


def test_other_devices_are_warned_of(untried):
    t, tiles = Tiling(16, 64, 8, 16, 4, 8, 0, 0), torch.empty(1, device="meta")
    message = "^packed layers have no kernels on meta: they are decoded at every call, in many"
    with pytest.warns(UserWarning, match=message):
        assert not operator._has_programs(t, tiles)
    message = "^packed layers with sub-vectors of more than 32 have no kernels on meta: they are"
    with pytest.warns(UserWarning, match=message):
        assert not operator._has_programs(t._replace(d=64), tiles)
    assert not operator._has_programs(t, tiles)  # said once


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_keeps_a_gpu_from_its_programs_is_said(untried):
    with pytest.warns(
        UserWarning, match=r"^packed layers have no kernels on cuda \(Triton, of the"
    ):
        assert not operator._runs_programs(torch.device("cuda", 0))


def test_a_gpu_without_programs_is_slow_but_right(weight, monkeypatch):
    x = torch.randn(3, 130)
    for activations in ("int8", "int16"):
        y = packed_linear(x, *arguments(weight), None, weight.tiling, activations)
        with monkeypatch.context() as patch:
            patch.setattr(operator, "kernels_for", lambda t: None)
            found = operator._gpu_linear(x, *arguments(weight), None, weight.tiling, activations)
        assert torch.equal(found, y)
