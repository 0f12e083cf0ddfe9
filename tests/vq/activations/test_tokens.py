"""Rounding of activations: against numbers worked out by hand, and as hooks in models."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rescomp import QEP, ActivationQuantizer, Settings, quantize_
from tests.rescomp.models import Convolutions, chain, llama, tokens, vectors
from tests.vq.container.samples import PROPERTY
from vq import Int4, Recipe
from vq.activations.tokens import round_tokens
from vq.errors import ConfigError, UnsupportedLayerError
from vq.formats.model import compressed_layers


def test_levels_by_hand():
    x = torch.tensor([[-3.5, 0.4, 7.0], [0.0, 0.0, 0.0]])
    # Steps of 7 / 1: -3.5 is half a step, which rounds to the even 0.
    assert round_tokens(x, 2).tolist() == [[0.0, 0.0, 7.0], [0.0, 0.0, 0.0]]
    # Steps of 10.5 / 3 with 0 as the second level.
    assert round_tokens(x, 2, symmetric=False).tolist() == [[-3.5, 0.0, 7.0], [0.0, 0.0, 0.0]]
    # Half of the range: 3.5 / 1, and one more level below.
    assert round_tokens(x, 2, clip=0.5)[0].tolist() == [-3.5, 0.0, 3.5]
    high = torch.tensor([2.0, 5.0])  # 0 is between: steps of 5 / 3
    torch.testing.assert_close(round_tokens(high, 2, symmetric=False), torch.tensor([5 / 3, 5.0]))


@PROPERTY
@given(st.integers(2, 8), st.booleans(), st.integers(1, 20), st.integers(0, 2**16))
def test_every_token_has_a_grid_of_its_own(bits, symmetric, width, seed):
    torch.manual_seed(seed)
    x = torch.randn(5, width) * torch.tensor([1e-3, 1.0, 10.0, 1e4, 0.0])[:, None]
    got = round_tokens(x, bits, symmetric=symmetric)
    for i in range(5):
        assert torch.equal(got[i], round_tokens(x[i], bits, symmetric=symmetric))
        assert len(got[i].unique()) <= 2**bits
        span = x[i].abs().max() if symmetric else x[i].max().clamp(min=0) - x[i].min().clamp(max=0)
        step = span / ((2 ** (bits - 1) - 1) if symmetric else 2**bits - 1)
        assert (got[i] - x[i]).abs().max() <= step * (0.5 if symmetric else 1) + 1e-6 * span


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_pass_as_if_nothing_happened(symmetric):
    x, weight = torch.randn(5, 9), torch.randn(5, 9)
    leaf = x.clone().requires_grad_()
    got = round_tokens(leaf, 3, symmetric=symmetric, clip=0.9)
    assert torch.equal(got, round_tokens(x, 3, symmetric=symmetric, clip=0.9))
    (got * weight).sum().backward()
    assert torch.equal(leaf.grad, weight)


def test_hooks_can_be_switched():
    model, x = chain(), vectors(1)[0]
    before = model(x)
    rounding = ActivationQuantizer(model, ["0", "4"], 3, symmetric=False, clip=0.9)
    rounded = model(x)
    inner = round_tokens(x, 3, symmetric=False, clip=0.9)
    inner = nn.functional.linear(inner, model[0].weight, model[0].bias)
    inner = round_tokens(model[1:4](inner), 3, symmetric=False, clip=0.9)
    assert torch.equal(rounded, nn.functional.linear(inner, model[4].weight, model[4].bias))
    assert (rounded - before).abs().max() > 1e-3
    with rounding.off():
        assert torch.equal(model(x), before)
        with rounding.off():
            pass
        assert torch.equal(model(x), before)
    assert torch.equal(model(x), rounded)
    rounding.remove()
    assert torch.equal(model(x), before)


def test_half_precision_keeps_its_dtype():
    x = torch.randn(4, 9).to(torch.bfloat16)
    assert round_tokens(x, 4).dtype == torch.bfloat16


def test_calibration_sees_rounded_inputs_beside_plain_ones():
    """With rounded activations in one model only, even the first layer's inputs differ."""
    recipe = Recipe({"0": Int4(group=4), "4": Int4(group=4)})
    errors = {}
    for bits in (None, 3):
        model = chain()
        rounding = bits and ActivationQuantizer(model, ["0", "2.0", "4"], bits)
        result = quantize_(
            model, vectors(8), recipe, QEP(), settings=Settings(), activations=rounding
        )
        report = result.layers[0].report
        errors[bits] = (report.error, report.asymmetric_error)
        assert len(list(compressed_layers(model))) == 2
    assert errors[None][0] == pytest.approx(errors[None][1])
    assert errors[3][1] < errors[3][0]


class Stemmed(nn.Module):
    """Blocks behind a layer that no recipe of the test selects."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(9, 8)
        self.blocks = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))

    def forward(self, x):
        return self.blocks(self.stem(x))


def test_what_is_rounded_before_the_blocks_is_so_in_one_model_only():
    model, recipe = Stemmed(), Recipe({"blocks.*": Int4(group=4)})
    data = [torch.randn(32, 9) for _ in range(4)]
    rounding = ActivationQuantizer(model, ["stem"], 3)
    report = quantize_(model, data, recipe, QEP(), activations=rounding).layers[0].report
    assert report.asymmetric_error < 0.9 * report.error


def test_llama_with_four_bits_each():
    pytest.importorskip("transformers")
    model = llama()
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    rounding = ActivationQuantizer(model, names, 4)
    quantize_(model, tokens(8), 4, QEP(), activations=rounding)
    batch = tokens(1)[0]
    on = model(batch).logits
    with rounding.off():
        off = model(batch).logits
    assert torch.isfinite(on).all() and not torch.equal(on, off)


def test_impossible_settings():
    for bits in (1, 9):
        with pytest.raises(ConfigError, match=rf"^activation bits must be 2 to 8, not {bits}$"):
            ActivationQuantizer(chain(), ["0"], bits)
    with pytest.raises(ConfigError, match=r"^activation clip must be in \(0, 1\], not 0$"):
        ActivationQuantizer(chain(), ["0"], clip=0)
    with pytest.raises(ConfigError, match=r"^model must hold the layers 9, not lack them$"):
        ActivationQuantizer(chain(), ["9"])
    with pytest.raises(UnsupportedLayerError, match=r"'stem': must be linear, not Conv2d"):
        ActivationQuantizer(Convolutions(), ["stem"])


class Reading(nn.Module):
    """Two linears; how the second one is used is given."""

    def __init__(self, use):
        super().__init__()
        self.first, self.second, self.use = nn.Linear(8, 8), nn.Linear(8, 8), use

    def forward(self, x):
        return self.use(self.second, self.first(input=x))


def attention():
    return nn.MultiheadAttention(8, 2, batch_first=True).eval()


@pytest.mark.parametrize(
    ("model", "layers", "silent", "inputs"),
    [
        (attention(), ["out_proj"], "out_proj", 3),
        (
            nn.TransformerEncoderLayer(8, 2, batch_first=True).eval(),
            ["linear1", "self_attn.out_proj", "linear2"],
            "self_attn.out_proj",
            1,
        ),
        (
            Reading(lambda layer, x: nn.functional.linear(x, layer.weight)),
            ["first", "second"],
            "second",
            1,
        ),
        (Reading(lambda layer, x: layer.forward(x)), ["second"], "second", 1),
        (Reading(lambda layer, x: x), ["first", "second"], "second", 1),
    ],
)
def test_rounding_that_never_takes_place_is_refused(model, layers, silent, inputs):
    rounding = ActivationQuantizer(model, layers, 2)
    message = f"^activations to round must enter the layers, .* without calling {silent};"
    for network in (model, copy.deepcopy(model)):
        with pytest.raises(ConfigError, match=message):
            network(*[torch.randn(2, 5, 8)] * inputs)
    with rounding.off():
        model(*[torch.randn(2, 5, 8)] * inputs)


def test_experts_that_no_token_reaches_are_not_refused():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8))])

        def forward(self, x, which):
            return self.experts[which](x)

    model, x = Routed(), torch.randn(3, 8)
    plain = model(x, 1)
    ActivationQuantizer(model, ["experts.0", "experts.1.0"], 2)
    assert not torch.equal(model(x, 1), plain)
    model(x, 0)


def test_inputs_by_name_are_rounded():
    model, x = Reading(lambda layer, x: layer(x)), torch.randn(3, 8)
    ActivationQuantizer(model, ["first"], 2)
    expected = model.second(nn.functional.linear(round_tokens(x, 2), *model.first.parameters()))
    assert torch.equal(model(x), expected)


def test_rounding_of_no_layer_is_refused():
    with pytest.raises(
        ConfigError, match=r"^activations to round must have at least one layer, no"
    ):
        ActivationQuantizer(nn.Sequential(nn.Linear(4, 4)), [])
