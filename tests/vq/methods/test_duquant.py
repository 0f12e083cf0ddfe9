"""DuQuant: exact before rounding, smaller where it rounds, and a model that its file gives back."""

import copy
import warnings

import pytest
import torch
from torch import nn

import vq
from tests.rescomp.models import bert, chain, gpt2, llama, masked, tokens, vectors
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach, runtime_tensors
from vq.errors import ConfigError, WeightError
from vq.formats.remaining import all_remaining, remaining
from vq.methods.duquant import duquant_, spread_
from vq.perturbation.composition import Perturb
from vq.perturbation.mask import Mask

RECIPE = vq.Recipe({"*_proj": vq.Int4(group=8, zeros=True)})
FEW = {"steps": 4, "progress": False}


def output(model, batch):
    found = model(**batch) if isinstance(batch, dict) else model(batch)
    return found[0] if not isinstance(found, torch.Tensor) else found


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "data", "pattern"),
    [
        (llama, tokens, "*_proj"),
        (bert, masked, "*layer*"),
        (gpt2, tokens, "transformer.h.*"),
        (chain, vectors, "*"),
    ],
)
def test_it_is_exact_before_anything_is_rounded(build, data, pattern):
    model, batches = build().eval().double(), data()
    if build is chain:
        batches = [x.double() for x in batches]
    want = [output(model, batch) for batch in batches]
    before = copy.deepcopy(model.state_dict())
    found = spread_(model, batches, vq.Recipe({pattern: vq.Int4(group=4)}), alpha=0.6, **FEW)
    for batch, one in zip(batches, want, strict=True):
        assert float((output(model, batch) - one).abs().max()) < 1e-10
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {f"{name}.weight" for group in found.groups for name in group}
    if build is llama:
        assert [len(group) for group in found.groups] == 3 * [3, 1, 2, 1]
        assert found.blocks == 3 * [8, 8, 8, 8] and found.left_out == {}
        transforms = {id(p) for m in model.modules() for p in remaining(m)}
        assert len(transforms) == len(found.groups), "readers of one tensor share one transform"


def test_what_cannot_have_a_transform_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 15), nn.ReLU(), nn.Linear(15, 4), nn.Linear(4, 4))
    model.append(nn.Linear(4, 4, bias=False))
    model[4].weight = model[3].weight
    model.add_module("idle", nn.Identity())
    found = spread_(model, vectors(), vq.Recipe({"*": vq.Int4(group=4)}), **FEW)
    assert found.groups == [["0"]] and found.blocks == [4]
    assert found.left_out == {"2": "it has 15 inputs, an odd number", "3": "its weight is tied"}


def spiky(build=llama):
    """A model whose inputs of linears have outliers, as large ones have."""
    torch.manual_seed(0)
    model = build(initializer_range=0.2)
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data[3] = 40
    return model


@torch.no_grad()
def test_rounded_activations_lose_less_and_the_file_gives_the_model_back(tmp_path):
    original, data = spiky(), tokens(4)
    want = [original(x).logits for x in data]

    def error(model):
        return sum(
            float((model(x).logits - y).square().mean()) for x, y in zip(data, want, strict=True)
        )

    plain, spread = copy.deepcopy(original), copy.deepcopy(original)
    spread_(spread, data, RECIPE, **FEW)
    linears = [n for n, m in plain.named_modules() if n.endswith("_proj")]
    for model in (plain, spread):
        attach(model, Rounding(4, symmetric=False), linears)
    assert error(spread) < 0.7 * error(plain)

    model = copy.deepcopy(original)
    settings = {"epochs": 1, "held_out": 0, **FEW}
    result = duquant_(model, data, RECIPE, perturb=Perturb(Mask(2)), **settings)
    assert all(block.after <= block.before for block in result.blocks)
    assert all(layer.trained for layer in result.layers)
    path = tmp_path / "model.vq.safetensors"
    assert vq.save(model, path).layout == "vqstream/2"
    loaded = vq.load(path, into=llama())
    assert all(torch.equal(loaded(x).logits, model(x).logits) for x in data)
    kinds = [p.kind for p in remaining(loaded.model.layers[0].mlp.down_proj)]
    assert kinds == ["transform", "rounding"]
    again = copy.deepcopy(original)
    duquant_(again, data, RECIPE, perturb=Perturb(Mask(2)), **settings)
    assert runtime_tensors(again) == runtime_tensors(model)
    vq.save(again, tmp_path / "again.vq.safetensors")
    assert (tmp_path / "again.vq.safetensors").read_bytes() == path.read_bytes()


@torch.no_grad()
def test_blocks_learn_what_the_model_gave_before_anything_was_rounded(monkeypatch):
    from vq.learning.fitting import Fitter

    seen, goal = [], Fitter.goal

    def noted(self, stage):
        seen.append([t for one in self._wanted(stage) for t in one])
        return goal(self, stage)

    monkeypatch.setattr(Fitter, "goal", noted)
    model, data = spiky(), tokens(2)
    blocks = list(model.model.layers)
    want: list = [[] for _ in blocks]
    handles = [
        b.register_forward_hook(lambda m, a, out, w=w: w.append(out))
        for b, w in zip(blocks, want, strict=True)
    ]
    for batch in data:
        model(batch)
    for handle in handles:
        handle.remove()
    duquant_(model, data, RECIPE, epochs=1, held_out=0, **FEW)
    for found, ours in zip(seen, want, strict=True):
        for one, other in zip(found, ours, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_transforms_and_bits_can_be_had_apart():
    model, data = llama(), tokens(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        duquant_(model, data, RECIPE, activation_bits=None, epochs=1, **FEW)
    kinds = {one.kind for module in model.modules() for one in remaining(module)}
    assert kinds == {"transform"}


def remains():
    model = chain()
    attach(model, Rounding(4), ["0"])
    return model


def test_what_cannot_be_is_refused_and_changes_nothing(monkeypatch):
    def refused(kind, match, call=spread_, build=chain, data=None, recipe=None, **settings):
        model = build()
        before = copy.deepcopy(model.state_dict())
        recipe = recipe or vq.Recipe({"*": vq.Int4(group=4)})
        with pytest.raises(kind, match=match):
            call(model, vectors() if data is None else data, recipe, **{**FEW, **settings})
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert [p.kind for p in all_remaining(model)] == ["rounding"] * (build is remains)

    refused(
        ConfigError,
        r"DuQuant has 2 problems:\n- alpha must be 0 to 1, not 2\n- st",
        alpha=2,
        steps=0,
    )
    refused(ConfigError, "block must be a power of two, 2 or more, not 12", block=12)
    refused(ConfigError, "at least one batch, not none", data=[])
    refused(ConfigError, "must find linears of which 2 divides", recipe=vq.Recipe({"*": None}))
    refused(ConfigError, "composition must hold one part at least", call=duquant_, clip=None)
    refused(ConfigError, "activation bits must be 2 to 8, not 1", call=duquant_, activation_bits=1)
    refused(ConfigError, "must be left out of DuQuant", call=duquant_, activations=object())
    refused(ConfigError, "epochs must be positive, not 0", call=duquant_, epochs=0)

    refused(ConfigError, r"DuQuant must be given a model .*\(rounding\)", build=remains)

    def broken():
        model = chain()
        model[4].weight.data[0, 0] = torch.nan
        return model

    monkeypatch.setattr(torch, "equal", lambda a, b: True)  # NaN is not itself
    refused(WeightError, "layer '4': weight must be finite", build=broken)
