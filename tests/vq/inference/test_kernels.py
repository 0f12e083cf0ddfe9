"""Kernels in C: the bits of the numpy reference, on every instruction set that is here."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vq.container.samples import coded, grouped, int8, samples
from tests.vq.inference.layers import FORMS, inputs_of, same_bits, wanted, weight_of
from vq.errors import ConfigError, ContainerError, SimulationError
from vq.inference import kernels as module
from vq.inference.kernels import (
    ISAS,
    Operand,
    instruction_set,
    instruction_sets,
    kernels,
    packed,
    served_by,
)
from vq.inference.tiles import Tiling, pack


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    if request.param not in instruction_sets():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("SIGNBOOK_ISA", request.param)
    return request.param


def product(sample, x, bias, activations):
    weight = weight_of(sample)
    library = kernels()
    assert library is not None
    layer = operand(weight, None if bias is None else torch.from_numpy(bias))
    (y,) = library.linear([layer], torch.from_numpy(x), activations)
    return y.numpy()


def operand(weight, bias=None):
    parts = weight.tiles, weight.codebook, weight.scale, weight.zeros
    return Operand(Tiling.of(weight.geometry), *parts, bias)


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_bits_of_the_reference(isa, form, activations):
    sample = FORMS[form]()
    bias = np.random.default_rng(1).standard_normal(sample.layer.geometry.O).astype(np.float32)
    for tokens in (1, 2, 3, 5, 13):
        x = inputs_of(sample, tokens)
        for own in (None, bias):
            y = product(sample, x, own, activations)
            assert same_bits(y, wanted(sample, x, own, activations)), (tokens, own is None)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(samples(), st.integers(1, 9), st.sampled_from(["int8", "int16"]), st.sampled_from([*ISAS]))
def test_any_layer_gives_the_bits_of_the_reference(sample, tokens, activations, isa):
    if sample.layer.geometry.b > 8 or isa not in instruction_sets():
        return
    x = inputs_of(sample, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGNBOOK_ISA", isa)
        assert same_bits(
            product(sample, x, None, activations), wanted(sample, x, None, activations)
        )


def test_sums_past_32_bits(isa):
    """A hundred thousand inputs, all of them as large as they can be."""
    sample = coded(
        method="vq", shape=(3, 100_000), d=8, k=2, codebook=np.full((2, 8), 127, np.int8)
    )
    x = np.ones((2, 100_000), np.float32)
    for activations in ("int8", "int16"):
        y = product(sample, x, None, activations)
        assert same_bits(y, wanted(sample, x, None, activations))


@pytest.mark.parametrize("activations", ["int8", "int16", "exact"])
def test_several_layers_in_one_call_are_as_each_alone(isa, activations):
    samples = [coded(shape=(n, 90), d=d, k=16) for n, d in ((40, 8), (17, 8), (33, 4))]
    samples += [coded(shape=(70, 90), d=8, k=16, axis="out"), int8(shape=(20, 90))]
    samples += [grouped(method="int4", shape=(37, 90), group=width) for width in (32, 90)]
    layers = [operand(weight_of(sample)) for sample in samples]
    for tokens in (1, 2, 5):
        x = torch.from_numpy(inputs_of(samples[0], tokens))
        together = kernels().linear(layers, x, activations)
        for layer, y in zip(layers, together, strict=True):
            assert torch.equal(y, kernels().linear([layer], x, activations)[0])


@pytest.mark.parametrize("form", FORMS)
def test_threads_change_no_bit(form):
    sample = FORMS[form]()
    x, before = inputs_of(sample, 6), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert same_bits(product(sample, x, None, "int8"), wanted(sample, x, None, "int8"))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("form", FORMS)
def test_exact_activations(isa, form):
    sample = FORMS[form]()
    x = inputs_of(sample, 3)
    g = sample.layer.geometry
    y = product(sample, x, None, "exact")
    exact = x.astype(float) @ sample.weight.reshape(g.O, g.I).T.astype(float)
    assert np.allclose(y, exact, rtol=1e-5, atol=1e-5 * abs(exact).max(axis=1, keepdims=True))


@pytest.mark.parametrize("activations", ["int8", "int16", "exact"])
def test_what_is_not_finite_stays_with_its_token(isa, activations):
    sample = FORMS["nibbles8"]()
    x = inputs_of(sample, 3)
    x[1, 5] = np.nan
    y = product(sample, x, None, activations)
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_decoded(isa, form):
    sample = FORMS[form]()
    g, weight = sample.layer.geometry, weight_of(sample)
    chosen = torch.tensor([3, 0, g.O - 1, 3])
    assert torch.equal(
        weight.rows(chosen), torch.from_numpy(sample.weight.reshape(g.O, g.I))[chosen]
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(samples())
def test_packing_in_c_is_that_of_numpy(sample):
    g, stream = sample.layer.geometry, sample.layer.stream
    assert np.array_equal(packed(g, stream).numpy(), pack(g, stream))


def test_damaged_streams_are_refused():
    layer = coded().layer
    for byte, message in ((10, "index padding must be zero bits"), (-1, "sign padding must be")):
        stream = layer.stream.copy()
        stream[byte] |= 0x80
        with pytest.raises(ContainerError, match=rf"^layer 'a': {message}"):
            packed(layer.geometry, stream)
    stream = layer.stream.copy()
    stream[[0, 64, 128]] |= 1
    with pytest.raises(ContainerError, match="index must be below k = 5, not 7"):
        packed(layer.geometry, stream)


def test_the_best_instruction_set_is_chosen(monkeypatch):
    monkeypatch.delenv("SIGNBOOK_ISA", raising=False)
    assert instruction_set() == instruction_sets()[-1]
    assert served_by(Tiling(16, 16, 8, 257, 9, 8, 0, 0)) == "torch"
    monkeypatch.setenv("SIGNBOOK_ISA", "portable")
    assert instruction_set() == "portable"
    assert served_by(Tiling(16, 16, 8, 16, 4, 8, 0, 0)) == "portable"


def test_instruction_sets_that_are_not_here(monkeypatch):
    monkeypatch.setenv("SIGNBOOK_ISA", "mmx")
    with pytest.raises(
        ConfigError, match=r"^SIGNBOOK_ISA must be one of portable, .*, not 'mmx'; un"
    ):
        kernels()

    for isa in set(ISAS) - set(instruction_sets()):
        monkeypatch.setenv("SIGNBOOK_ISA", isa)
        with pytest.raises(
            ConfigError, match=rf"this processor \(portable.*\), not '{isa}'; unset"
        ):
            kernels()

    class Old:
        def signbook_can(self) -> int:
            return 1

    monkeypatch.setattr(module, "_portable", Old)
    module._kernels.cache_clear()
    monkeypatch.setenv("SIGNBOOK_ISA", "vbmi")
    with pytest.raises(
        ConfigError, match=r"instruction set of this processor \(portable\), not 'vb"
    ):
        kernels()
    module._kernels.cache_clear()


@pytest.fixture
def unbuilt(monkeypatch):
    """A process that has loaded no library yet."""
    for cached in (module._kernels, module._portable):
        cached.cache_clear()
    yield monkeypatch
    for cached in (module._kernels, module._portable):
        cached.cache_clear()


def test_without_a_compiler_torch_does_it(unbuilt, tmp_path):
    unbuilt.setenv("CC", "no-such-compiler")
    unbuilt.setenv("SIGNBOOK_CACHE", str(tmp_path))
    sample = FORMS["int4"]()
    x = inputs_of(sample, 2)
    message = (
        "^packed weights are multiplied by torch, which decodes them at every call, .*no-such-com"
    )
    with pytest.warns(UserWarning, match=message):
        weight = weight_of(sample)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        y = weight.multiply(torch.from_numpy(x), None).numpy()
    assert instruction_set() == "torch"
    assert same_bits(y, wanted(sample, x, None, "int8"))


def test_a_compiler_that_lacks_an_instruction_set(unbuilt):
    portable = module._library("portable")

    def library(isa):
        if isa != "portable":
            raise SimulationError("too old")
        return portable

    unbuilt.setattr(module, "_library", library)
    unbuilt.setenv("SIGNBOOK_ISA", instruction_sets()[-1])
    if instruction_sets()[-1] == "portable":
        pytest.skip("this processor has no other")
    with pytest.warns(
        UserWarning, match="by instructions that all processors have, not by .*too old"
    ):
        assert instruction_set() == "portable"
