"""Whole models in codewords: the walk, shared codebooks, files, resumed runs."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vq
from rescomp import GPTAQ, GPTAQR, GPTQ, QEP, RTN, Fitting, Settings, default_recipe, quantize_
from rescomp.codebooks import layers as coded_layers
from tests.rescomp.models import Branches, Convolutions, chain, images, vectors
from vq import SSVQ, VQ, Int8, Recipe
from vq.errors import ConfigError, ResumeError, UnsupportedLayerError
from vq.formats.model import compressed_layers

pytestmark = pytest.mark.filterwarnings("ignore:layer .* statistics should hold a token")
KIND = SSVQ(d=4, k=8, scale="output")


def branches():
    torch.manual_seed(0)
    return Branches()


def test_files_hold_what_was_computed_with(tmp_path):
    model = branches()
    recipe = Recipe({"*": SSVQ(d=4, k=8, scale="output", parity=True), "head": VQ(d=4, k=4)})
    result = quantize_(model, vectors(), recipe, QEP(), fitting=Fitting(sweeps=1))
    vq.save(model, tmp_path / "x.vq.safetensors")
    again = vq.load(tmp_path / "x.vq.safetensors", into=branches())
    for name, module in again.named_modules():
        if hasattr(module, "weight"):
            assert torch.equal(module.weight, model.get_submodule(name).weight), name
    assert {layer.method for layer in result.layers} == {"qep"}
    assert all(layer.report.error > 0 for layer in result.layers)


@pytest.mark.parametrize("method", [GPTQ(), GPTAQ(), GPTAQR(), QEP()], ids=str)
def test_compensation_beats_clustering(method):
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 48))
    mix = torch.linalg.qr(torch.randn(48, 48))[0] * 3
    data = [x * torch.arange(1, 49) ** -0.7 @ mix for x in vectors(8, 64, 48)]
    recipe = default_recipe(original, SSVQ(d=4, k=16, scale="output"))

    @torch.no_grad()
    def error(model):
        return sum(float((model(x) - original(x)).square().sum()) for x in data)

    clustered, compensated = copy.deepcopy(original), copy.deepcopy(original)
    vq.compress_(clustered, recipe, progress=False)
    quantize_(compensated, data, recipe, method)
    assert error(compensated) < 0.8 * error(clustered)


def test_codebooks_are_shared_by_layers_with_one_input_and_by_others():
    model = branches()
    recipe = Recipe({
        "[ab]": SSVQ(d=4, k=8, shared="in"), "c": SSVQ(d=4, k=8, shared="all"),
        "head": SSVQ(d=4, k=8, shared="all"),
    })  # fmt: skip
    quantize_(model, vectors(), recipe, GPTQ())
    found = {layer.name: layer for layer in compressed_layers(model)}
    assert found["a"].codebook is found["b"].codebook
    assert found["c"].codebook is found["head"].codebook
    assert found["a"].codebook is not found["c"].codebook


def test_outputs_matter_among_layers_that_share_a_codebook():
    """Given for one of them, the others matter like its mean; for layers without any, nothing."""
    recipe = Recipe({"[ab]": SSVQ(d=4, k=8, shared="in"), "*": None})
    rising = torch.linspace(0, 9, 12)

    def weights(**importance):
        model = branches()
        quantize_(model, vectors(), recipe, GPTQ(), importance=importance)
        return torch.cat([layer.module.weight for layer in compressed_layers(model)])

    plain = weights()
    assert torch.equal(weights(a=torch.ones(12), head=rising), plain)
    one = weights(b=rising)
    assert not torch.equal(one, plain)
    assert torch.equal(one, weights(b=rising, a=torch.full((12,), 4.5)))


def test_outputs_matter_to_a_codebook_that_is_clustered_beforehand():
    recipe = Recipe(
        {"*": None, "c": SSVQ(d=4, k=4, shared="all"), "a": SSVQ(d=4, k=4, shared="all")}
    )
    books = []
    for rows in (torch.ones(12), 10.0 ** torch.arange(12)):
        model = branches()
        quantize_(model, vectors(), recipe, GPTQ(), importance={"a": rows, "c": rows})
        books.append(next(compressed_layers(model)).codebook)
    assert not torch.equal(*books)


def test_importance_that_does_not_fit_is_refused_before_work(tmp_path):
    model, recipe = branches(), Recipe({"*": KIND})
    bad = {"a": torch.ones(3), "b": torch.full((12,), torch.nan), "c": -torch.ones(12)}
    said = (
        r"^importance has 3 problems:\n"
        r"- layer 'a': importance must have shape \(12,\), one for every output, not \(3,\)\n"
        r"- layer 'b': importance must be finite and non-negative\n"
        r"- layer 'c': importance must be finite and non-negative$"
    )
    with pytest.raises(ConfigError, match=said):
        quantize_(model, vectors(), recipe, GPTQ(), importance=bad, checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_with_another_importance_do_not_resume(tmp_path):
    given = (vectors(), Recipe({"*": KIND}), GPTQ())
    quantize_(branches(), *given, importance={"a": torch.ones(12)}, checkpoint_dir=tmp_path)
    with pytest.raises(ResumeError, match="importance"):
        quantize_(branches(), *given, checkpoint_dir=tmp_path, resume=True)


def test_a_model_in_codewords_trains():
    model = branches()
    quantize_(model, vectors(), default_recipe(model, KIND), GPTQ())
    (layer, *_) = compressed_layers(model)
    before = layer.module.weight.clone()
    model(vectors()[0]).square().sum().backward()
    assert layer.codebook.grad.abs().sum() > 0 and layer.latent.grad.abs().sum() > 0
    with torch.no_grad():
        layer.codebook.sub_(layer.codebook.grad.sign(), alpha=0.1)
    assert not torch.equal(layer.module.weight, before)


def test_resumed_runs_end_like_undisturbed_ones(tmp_path, monkeypatch):
    recipe = Recipe({"*": SSVQ(d=4, k=8, shared="all")})
    fitting = Fitting(sweeps=1)
    want, stopped, resumed = chain(), chain(), chain()
    quantize_(want, vectors(), recipe, QEP(), fitting=fitting)
    solve = coded_layers.quantize_codebook

    def fails(weights, geometries, *args, **more):
        if geometries[0].name == "4":
            raise KeyboardInterrupt
        return solve(weights, geometries, *args, **more)

    monkeypatch.setattr(coded_layers, "quantize_codebook", fails)
    with pytest.raises(KeyboardInterrupt):
        quantize_(stopped, vectors(), recipe, QEP(), fitting=fitting, checkpoint_dir=tmp_path)
    assert not list(compressed_layers(stopped))
    monkeypatch.undo()
    quantize_(
        resumed, vectors(), recipe, QEP(), fitting=fitting, checkpoint_dir=tmp_path, resume=True
    )
    for a, b in zip(compressed_layers(want), compressed_layers(resumed), strict=True):
        assert torch.equal(a.module.weight, b.module.weight), a.name
        assert all(torch.equal(x, y) for x, y in zip(a.originals, b.originals, strict=True))


def test_convolutions_are_solved_by_their_patches():
    torch.manual_seed(0)
    original = Convolutions()
    recipe = Recipe({"*": Int8(), "stem": None, "last": KIND, "head": KIND})
    model = copy.deepcopy(original)
    result = quantize_(model, images(), recipe, GPTQ(), settings=Settings(measure=False))
    assert [layer.geometry.method for layer in result.layers][-2:] == ["ssvq", "ssvq"]
    with pytest.raises(UnsupportedLayerError, match="sub-vectors must lie along inputs that all"):
        grouped = Recipe({"*": None, "blocks.2.conv": SSVQ(d=3, k=4, axis="in")})
        quantize_(original, images(), grouped, GPTQ())


def test_what_cannot_be_compensated_is_refused_before_work(tmp_path):
    path = tmp_path / "book.npy"
    np.save(path, np.arange(32, dtype=np.int8).reshape(8, 4))
    fixed = SSVQ(codebook=str(path), scale="output")
    for method, kind, match in (
        (GPTQ(), fixed, "layer '0': codebook must be its own or shared, not a fixed one"),
        (RTN(), KIND, r"layer '0': method must compensate, not rtn; use vq\.compress_"),
        (GPTAQR(mode="org"), KIND, "layer '0': mode must be 'allw' for codebooks, not 'org'"),
    ):
        with pytest.raises(UnsupportedLayerError, match=match):
            quantize_(chain(), vectors(), Recipe({"*": kind}), method)
