"""PrefixQuant: what stands in front, static scales, and blocks that learn with both."""

import copy
import warnings

import pytest
import torch
from torch import nn

import vq
from signbook.zoo.llama import Llama, LlamaConfig
from tests.rescomp.models import bert, gpt2, llama, masked, tokens, vectors
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach, runtime_tensors
from vq.activations.tokens import ActivationQuantizer
from vq.errors import ConfigError
from vq.formats.remaining import all_remaining
from vq.methods.duquant import spread_
from vq.methods.prefixquant import prefix_, prefixquant_, round_statically_
from vq.perturbation.composition import Perturb
from vq.perturbation.mask import Mask

RECIPE = vq.Recipe({"*_proj": vq.Int4(group=8, zeros=True)})
FAST = {"epochs": 1, "held_out": 0, "progress": False}
IDS = torch.tensor([[5, 9, 11, 4], [6, 6, 2, 30]])


def sinking():
    """Llama in which one token draws large inputs of ``down_proj``."""
    torch.manual_seed(0)
    model = llama(hidden_size=32, num_hidden_layers=2, initializer_range=0.1)
    mlp, embedding = model.model.layers[0].mlp, model.model.embed_tokens.weight.data
    embedding[:, 0], embedding[9, 0] = 0, 60
    for linear in (mlp.gate_proj, mlp.up_proj):
        linear.weight.data[5, 0] = 40
    return model


def zoo():
    torch.manual_seed(0)
    return Llama(LlamaConfig(32, 48, 2, 4, 2, 50, 32)).eval()


def with_nines(count=4):
    data = tokens(count)
    for batch in data:
        batch[batch == 9] = 8
        batch[:, 4] = 9
    return data


@torch.no_grad()
def test_outliers_stand_in_front_and_then_the_beginning_of_text():
    model, data = sinking(), with_nines()
    found = prefix_(model, data, RECIPE)
    assert found[0] == 9 and found[-1] == 1
    front = torch.tensor(found).expand(2, -1)
    want = sinking()(torch.cat([front, IDS], 1)).logits[:, len(found) :]
    torch.testing.assert_close(model(IDS).logits, want, rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning, match="no tokens are put in front, as none is an outlier"):
        assert prefix_(llama(), tokens(), RECIPE, bos=4) == []
    assert prefix_(sinking(), data, RECIPE, bos=4)[-1] == 4
    own = zoo()
    assert prefix_(own, tokens(), vq.Recipe({"blocks.*": vq.Int4(group=8)}), prefix=[3, 8]) == [
        3,
        8,
    ]
    assert {one.kind for one in all_remaining(own)} == {"prefix"}


@torch.no_grad()
def test_scales_are_static_and_shared_by_readers_of_a_tensor():
    model, data = llama(), tokens()
    found = round_statically_(model, data, RECIPE, 8)
    layer = "model.layers.1.self_attn."
    assert found[f"{layer}q_proj"] == found[f"{layer}v_proj"] != found[f"{layer}o_proj"]
    assert len({id(one) for one in all_remaining(model)}) == 12 and len(found) == 21
    plain = llama()
    error = (model(IDS).logits - plain(IDS).logits).square().mean() / plain(
        IDS
    ).logits.square().mean()
    assert 0 < float(error) < 1e-3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:block .*should give more values than learn")
@pytest.mark.parametrize("settings", [{}, {"perturb": Perturb(Mask(2))}, {"clip": None}])
def test_blocks_learn_and_the_file_gives_the_model_back(tmp_path, settings):
    model, data = sinking(), with_nines()
    result = prefixquant_(model, data, RECIPE, activation_bits=8, **FAST, **settings)
    assert len(result.blocks) == 2 and all(b.after <= b.before for b in result.blocks)
    kinds = {one.kind for one in all_remaining(model)}
    assert kinds == {"prefix", "rounding"}
    path = tmp_path / "model.vq.safetensors"
    assert vq.save(model, path).layout == "vqstream/2"
    loaded = vq.load(path, into=llama(hidden_size=32, num_hidden_layers=2))
    assert all(torch.equal(loaded(x).logits, model(x).logits) for x in data)
    assert runtime_tensors(loaded) == runtime_tensors(model)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:block .*should give more values than learn")
def test_activations_may_stay_as_they_are():
    model = sinking()
    prefixquant_(model, with_nines(2), RECIPE, activation_bits=None, **FAST)
    assert {one.kind for one in all_remaining(model)} == {"prefix"}


@torch.no_grad()
def test_a_prefix_makes_static_scales_do():
    original, data = sinking(), with_nines()

    def error(front):
        model = copy.deepcopy(original)
        if front:
            prefix_(model, data, RECIPE, prefix=front)
        want = [model(x[:, 5:]).logits for x in data]  # of texts without the token
        seen = [x[:, 5:] for x in data] if front else data
        round_statically_(model, seen, RECIPE, 4)
        found = [model(x[:, 5:]).logits for x in data]
        return sum(float((a - b).square().mean()) for a, b in zip(found, want, strict=True))

    assert error([9, 1]) < 0.7 * error([])


@torch.no_grad()
def test_transforms_may_be_there_before():
    model, data = sinking().double(), with_nines()
    spread_(model, data, RECIPE, steps=2, progress=False)
    before = [model(x).logits for x in data]
    assert prefix_(model, data, RECIPE, prefix=[9, 1]) == [9, 1]
    other = sinking().double()
    prefix_(other, data, RECIPE, prefix=[9, 1])
    for x, plain in zip(data, before, strict=True):
        torch.testing.assert_close(model(x).logits, other(x).logits, rtol=0, atol=1e-4)
        assert not torch.allclose(model(x).logits, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "data", "pattern", "match"),
    [
        (bert, masked, "*layer*", "as BertModel is not causal: encoder.layer.0"),
        (lambda: nn.Sequential(nn.Linear(12, 4)), vectors, "*", "calibration is not of tokens"),
        (
            lambda: _eager(), tokens, "*_proj",
            "as LlamaForCausalLM does not attend by torch's scaled_dot_product_attention",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_have_a_prefix_go_without(build, data, pattern, match):
    model, recipe = build().eval(), vq.Recipe({pattern: vq.Int4(group=8)})
    with pytest.warns(UserWarning, match=match):
        assert prefix_(model, data(), recipe) == []
    with pytest.raises(ConfigError, match="prefix must be of a model that can have one, but"):
        prefix_(model, data(), recipe, prefix=[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prefixquant_(model, data(), recipe, activation_bits=8, **FAST)
    assert {one.kind for one in all_remaining(model)} == {"rounding"}


def _eager():
    model = llama()
    model.set_attn_implementation("eager")
    return model


def test_what_cannot_be_is_refused_and_changes_nothing():
    def refused(match, call=prefix_, build=llama, data=None, recipe=RECIPE, **settings):
        model = build()
        before, parts = copy.deepcopy(model.state_dict()), all_remaining(model)
        with pytest.raises(ConfigError, match=match):
            call(model, tokens() if data is None else data, recipe, **settings)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert all_remaining(model) == parts

    refused("must be shorter than the model's context of 32 tokens, not 32", prefix=[3] * 32)
    refused(r"at most the model's 32 tokens long with the 23 in front, not 33", prefix=[3] * 23)
    refused("must be of tokens that the model knows, not hold 50", prefix=[50])
    refused("must be of tokens that the model knows, not hold -1", prefix=[-1])
    refused("must have relative positions to have tokens in front", build=gpt2, prefix=[3],
            recipe=vq.Recipe({"transformer.h.*": vq.Int4(group=8)}))  # fmt: skip
    refused("must have at least one linear layer", recipe=vq.Recipe({"*": None}))
    refused("at least one batch, not none", data=[])
    refused("activation bits must be 2 to 8, not 9", call=prefixquant_, activation_bits=9)
    refused("must be left out of PrefixQuant", call=prefixquant_, activations=object())
    refused("epochs must be positive, not 0", call=prefixquant_, prefix=[3], epochs=0)
    refused("with a prefix must attend|prefix must be shorter", call=prefixquant_, prefix=[3] * 40)

    def rounded():
        model = llama()
        attach(model, Rounding(4), ["model.layers.0.mlp.down_proj"])
        return model

    for call in (prefix_, prefixquant_):
        refused(r"without prefix and rounding, but .*\(rounding\)", call=call, build=rounded)
    refused("must not be rounded already, as those of model.layers.0.mlp.down_proj",
            call=lambda *args: round_statically_(*args, 4), build=rounded)  # fmt: skip
    model = rounded()
    with pytest.raises(ConfigError, match="must not be rounded already"):
        ActivationQuantizer(model, ["model.layers.0.mlp.down_proj"])
