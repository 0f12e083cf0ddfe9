"""Whole models: the walk finds blocks, and gives what running whole models alone would give."""

import copy
import math
import re
import warnings

import pytest
import torch
from torch import nn

import rescomp
import vq
from rescomp import (
    GPTAQ,
    GPTAQR,
    GPTQ,
    GPTQR,
    QEP,
    RTN,
    ActivationQuantizer,
    Settings,
    default_recipe,
    quantize_,
)
from rescomp.methods import uncrossed
from tests.rescomp.models import (
    CASES,
    Branches,
    Normed,
    Shared,
    bert,
    by_whole_models,
    chain,
    gpt2,
    llama,
    masked,
    tokens,
    vectors,
)
from tests.vq.models import unchanged
from vq import Int3, Int4, Int8, Recipe
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach
from vq.calibration.norms import reestimate_norms_
from vq.calibration.survey import survey, without_cache
from vq.container import open_container
from vq.errors import ConfigError, RecipeError, ResumeError, UnsupportedLayerError, WeightError
from vq.formats.model import compressed_layers
from vq.layers import candidates

EXACT = Settings(dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings("ignore:layer .* statistics should hold a token")


class New(Int4):
    """A format of scalars that no solver may choose."""

    takes_codes = False


def case(name):
    if name in ("llama", "bert", "gpt2"):
        pytest.importorskip("transformers")
    build, data = CASES[name]
    torch.manual_seed(0)
    return build(), data()


def integers(model):
    found = {}
    for layer in compressed_layers(model):
        stored, _ = layer.weight.integers(*layer.originals)
        found[layer.name] = stored.to(torch.int8)
    return found


GROUPS = {
    "llama": [
        group
        for i in range(3)
        for group in (
            [f"model.layers.{i}.self_attn.{x}_proj" for x in "qkv"],
            [f"model.layers.{i}.self_attn.o_proj"],
            [f"model.layers.{i}.mlp.{x}_proj" for x in ("gate", "up")],
            [f"model.layers.{i}.mlp.down_proj"],
        )
    ],
    "bert": [
        group
        for i in range(2)
        for group in (
            [f"encoder.layer.{i}.attention.self.{x}" for x in ("query", "key", "value")],
            [f"encoder.layer.{i}.attention.output.dense"],
            [f"encoder.layer.{i}.intermediate.dense"],
            [f"encoder.layer.{i}.output.dense"],
        )
    ],
    "gpt2": [
        [f"transformer.h.{i}.{x}"]
        for i in range(2)
        for x in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ],
    "convolutions": [["stem"], *[[f"blocks.{i}.conv"] for i in range(3)], ["last"], ["head"]],
    "keywords": [
        ["embed"],
        *[[f"blocks.{i}.{x}"] for i in range(3) for x in ("fc1", "fc2")],
        ["head"],
    ],
    "branches": [["a", "b"], ["c"], ["head"]],
    "sum": [["a"], ["b"], ["head"]],
    "shared": [[f"blocks.{i}"] for i in ("0.fc1", "0.fc2", "1.fc1", "1.fc2", "2.fc2")],
    "skips": [[f"blocks.{i}.{x}"] for i in range(4) for x in ("fc1", "fc2")],
    "chain": [["0"], ["2.0"], ["4"]],
    "normed": [
        ["stem"],
        ["norm"],
        (first := ["blocks.0.first", "blocks.0.norm"]),
        ["blocks.0.fc1"],
        first,
        ["blocks.0.fc2"],
        first,
        ["blocks.1.first", "blocks.1.norm"],
        (last := ["blocks.2.first", "blocks.2.norm"]),
        ["blocks.2.fc1"],
        last,
        ["blocks.2.fc2"],
        last,
        ["tail"],
        ["head"],
    ],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", [GPTQ(), QEP()], ids=str)
def test_codes_are_those_of_whole_models(name, method):
    model, data = case(name)
    named = {layer for group in GROUPS[name] for layer in group}
    recipe = Recipe({n: Int3(group=8) for n, _ in candidates(model) if n in named})
    want = by_whole_models(model, data, GROUPS[name], recipe, method, EXACT)
    result = quantize_(model, data, recipe, method, settings=EXACT)
    assert [layer.geometry.name for layer in result.layers] == list(integers(model))
    for layer, codes in integers(model).items():
        assert torch.equal(codes, want[layer]), layer
    for layer in result.layers:
        assert layer.method == method.name and layer.report.tokens > 0
        assert layer.report.error > 0 and math.isfinite(layer.report.asymmetric_error)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("llama", ["model.layers.0", "model.layers.1", "model.layers.2"]),
        ("bert", ["encoder.layer.0", "encoder.layer.1"]),
        ("gpt2", ["transformer.h.0", "transformer.h.1"]),
        ("convolutions", ["blocks.0", "blocks.1", "blocks.2"]),
        ("keywords", ["blocks.0", "blocks.1", "blocks.2"]),
        ("branches", None),
        ("skips", None),
        ("shared", ["blocks.0", "blocks.1", "blocks.2"]),
        ("chain", ["0", "1", "2.0", "2.1", "3", "4"]),
    ],
)
def test_blocks_are_found_by_running(name, blocks):
    model, data = case(name)
    with torch.no_grad(), without_cache(model):
        seen = survey(model, data, [])
    assert (None if seen.chain is None else list(seen.chain.names)) == blocks


def test_layers_with_one_weight_are_calibrated_wherever_they_run():
    found = []
    for weight_only in (False, True):
        torch.manual_seed(0)
        model, data = Shared(weight_only=weight_only), vectors()
        with torch.no_grad():
            kept = survey(model, data, ["blocks.1.fc1"])
            assert kept.chain is not None and kept.places["blocks.1.fc1"] == 1
            assert survey(model, data, ["blocks.0.fc1"]).chain is None  # it runs in two blocks
        result = quantize_(model, data, 3, QEP(), settings=EXACT)
        tokens_of = {x.geometry.name: x.report.tokens for x in result.layers}
        assert tokens_of == {
            "blocks.0.fc1": 64, **{f"blocks.{i}": 32 for i in ("0.fc2", "1.fc1", "1.fc2", "2.fc2")}
        }  # fmt: skip
        found.append(integers(model))
    for name, codes in found[0].items():
        assert torch.equal(found[1][name], codes), name


def test_a_weight_may_run_under_another_name_than_its_first():
    model = Branches()
    model.a.weight = (unused := nn.Linear(12, 12)).weight
    found = nn.ModuleDict({"unused": unused, "model": model})
    found.forward = lambda x: model(x)
    result = quantize_(found, vectors(), 4, GPTQ())
    assert {x.geometry.name: x.report.tokens for x in result.layers} == {
        "unused": 32, "model.b": 32, "model.c": 64, "model.head": 32
    }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_was_computed_with_is_stored(tmp_path, name):
    model, data = case(name)
    fresh = copy.deepcopy(model)
    result = quantize_(model, data, default_recipe(model, 3, group=16, zeros=True), GPTAQ())
    vq.save(model, tmp_path / "x")
    same = vq.load(tmp_path / "x", into=fresh)
    for layer in compressed_layers(model):
        assert torch.equal(same.get_submodule(layer.name).weight, layer.module.weight)
    batch = data[0][0] if isinstance(data[0], tuple) else data[0]
    outputs = [m(**batch) if isinstance(batch, dict) else m(batch) for m in (model, same)]
    first, second = (getattr(o, "logits", getattr(o, "last_hidden_state", o)) for o in outputs)
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
    with open_container(tmp_path / "x") as file:
        assert [e.geometry.name for e in file.layers] == [x.geometry.name for x in result.layers]
    assert result.bits_per_weight > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bits_and_dtypes(tmp_path, bits, dtype):
    model = chain().to(dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = [batch.to(dtype) for batch in vectors()]
    quantize_(model, data, bits, GPTQ())
    for layer in compressed_layers(model):
        assert layer.module.weight.dtype == dtype
        assert (layer.module.weight - before[f"{layer.name}.weight"]).abs().max() > 0
    vq.save(model, tmp_path / "x")
    same = vq.load(tmp_path / "x", into=chain().to(dtype))
    assert torch.equal(same(data[0]), model(data[0]))
    for layer in compressed_layers(model):  # training goes on from what was quantised
        layer.module.weight.float().sum().backward()
        assert layer.originals[0].grad is not None


def test_modes_flags_caches_and_kept_layers_stay_as_they_were():
    pytest.importorskip("transformers")
    model = llama()
    model.train()
    head = model.lm_head.weight.detach().clone()
    result = quantize_(model, tokens(2), 4, GPTQ())
    assert model.training and model.config.use_cache
    assert "forward" not in vars(model.model.layers[0])
    assert not model.model.layers[0]._forward_pre_hooks
    assert set(result.kept) == {"model.embed_tokens", "lm_head"}
    assert torch.equal(model.lm_head.weight, head)


def test_a_caller_in_inference_mode_gets_a_model_that_trains():
    model, other, data = chain(), chain(), vectors()
    quantize_(model, data, 4, QEP())
    with torch.inference_mode():
        quantize_(other, [x.clone() for x in data], 4, QEP())
    for layer in compressed_layers(other):
        assert torch.equal(model.get_submodule(layer.name).weight, layer.module.weight)
        layer.module.weight.sum().backward()


def test_head_and_tied_embedding():
    pytest.importorskip("transformers")
    model = llama(tie_word_embeddings=True)
    recipe = Recipe({"*": Int4(group=8)})
    result = quantize_(model, tokens(), recipe, GPTQ())
    methods = {layer.geometry.name: layer.method for layer in result.layers}
    assert methods.pop("model.embed_tokens") == "rtn"  # rows that are looked up
    assert set(methods.values()) == {"gptq"}
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    untied = llama()
    quantize_(untied, tokens(), Recipe({"lm_head": Int4(group=8)}), GPTQ())
    (layer,) = compressed_layers(untied)
    assert layer.name == "lm_head"


@pytest.mark.parametrize("settings", [Settings(), Settings(measure=False)])
@pytest.mark.parametrize("name", ["llama", "convolutions", "branches"])
def test_rounding_to_nearest_needs_no_run(name, settings):
    model, data = case(name)
    plain = copy.deepcopy(model)
    recipe = default_recipe(model, 3, group=16)
    result = quantize_(model, data, recipe, RTN(), settings=settings)
    vq.compress_(plain, recipe)
    for ours, theirs in zip(compressed_layers(model), compressed_layers(plain), strict=True):
        assert torch.equal(ours.module.weight, theirs.module.weight)
    assert all((x.report.error is None) == (not settings.measure) for x in result.layers)


def test_hidden_states_may_lie_elsewhere():
    model, data = case("convolutions")
    other = copy.deepcopy(model)
    quantize_(model, data, 3, QEP())
    quantize_(other, data, 3, QEP(), offload=True)
    ours, theirs = integers(model), integers(other)
    assert all(torch.equal(codes, theirs[name]) for name, codes in ours.items())


def test_batch_norms_end_measured_again_on_the_data():
    torch.manual_seed(0)
    model, data = Normed(), vectors(rows=32)
    quantize_(model, data, 2, GPTQ())
    ended = copy.deepcopy(model.state_dict())
    assert reestimate_norms_(model, data) == 8
    unchanged(model, ended)
    assert model.tail.running_mean.any() and model.tail.momentum == 0.1
    rounded = Normed()
    quantize_(rounded, data, 2, settings=Settings(measure=False))  # runs nothing else
    assert rounded.tail.running_mean.any()


def test_batch_norms_stay_without_data_or_if_they_are_to():
    with pytest.warns(UserWarning, match=r"^batch norms must be measured again once weights"):
        quantize_(Normed(), None, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_(Normed(), None, 2, norms=False)
        quantize_(model := Normed(), vectors(rows=32), 2, GPTQ(), norms=False)
    assert not any(m.running_mean.any() for m in model.modules() if isinstance(m, nn.BatchNorm1d))


class _Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["llama", "convolutions", "branches", "normed"])
@pytest.mark.parametrize("after", [1, 5])
def test_resumed_runs_end_like_undisturbed_ones(tmp_path, name, after):
    model, data = case(name)
    start = copy.deepcopy(model)
    settings = {"recipe": default_recipe(model, 2, group=8), "method": QEP()}
    want = quantize_(model, data, **settings)
    seen = []

    def stop(done, total, layer):
        seen.append((done, total, layer))
        if done == after:
            raise _Stop

    if after >= len(want.layers):
        pytest.skip("has fewer layers")
    with pytest.raises(_Stop):
        quantize_(copy.deepcopy(start), data, **settings, checkpoint_dir=tmp_path, progress=stop)
    assert [done for done, *_ in seen] == list(range(1, after + 1))
    assert seen[0][1] == len(want.layers)
    resumed = copy.deepcopy(start)
    got = quantize_(resumed, data, **settings, checkpoint_dir=tmp_path, resume=True)
    assert got == want
    for layer in compressed_layers(model):
        assert torch.equal(resumed.get_submodule(layer.name).weight, layer.module.weight)
    buffers = dict(resumed.named_buffers())
    assert all(torch.equal(buffers[name], value) for name, value in model.named_buffers())
    again = copy.deepcopy(start)  # now everything is there
    assert quantize_(again, data, **settings, checkpoint_dir=tmp_path, resume=True) == want


def test_another_run_is_not_resumed(tmp_path):
    data = vectors()
    quantize_(chain(), data, 3, GPTQ(), checkpoint_dir=tmp_path)

    def refused(error, *, model=None, data=data, bits=3, method=GPTQ(), **settings):  # noqa: B008
        with pytest.raises(error) as caught:
            quantize_(model or chain(), data, bits, method, checkpoint_dir=tmp_path, **settings)
        return str(caught.value)

    assert "must be free of checkpoints" in refused(ConfigError)
    changed, rounded = chain(), chain()
    changed[0].weight.data[0, 0] += 1
    for subject, settings in {
        "method": {"method": GPTAQ()},
        "recipe": {"bits": 4},
        "data": {"data": vectors(3)},
        "settings": {"settings": Settings(damping=0.1)},
        "weights": {"model": changed},
        "norms": {"norms": False},
        "activations": {"model": rounded, "activations": ActivationQuantizer(rounded, ["0"])},
    }.items():
        assert f"but its {subject} differs" in refused(ResumeError, resume=True, **settings)
    with pytest.raises(ConfigError, match=r"^checkpoint_dir must be given to resume, not None$"):
        quantize_(chain(), data, 3, GPTQ(), resume=True)


def test_damaged_checkpoints_are_noticed(tmp_path):
    quantize_(chain(), vectors(), 3, GPTQ(), checkpoint_dir=tmp_path)
    file = next(tmp_path.rglob("step-*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ResumeError, match="must be whole"):
        quantize_(chain(), vectors(), 3, GPTQ(), checkpoint_dir=tmp_path, resume=True)


def test_layers_that_never_run_are_all_named():
    model = Branches()
    model.d, model.e = nn.Linear(12, 12), nn.Linear(12, 12)
    with pytest.raises(ConfigError, match=r"must run on the calibration data, but 'd', 'e' never"):
        quantize_(model, vectors(), 4, GPTQ())
    assert not list(compressed_layers(model))
    quantize_(model, vectors(), Recipe({"*": Int4(), "d": None, "e": None}), GPTQ())


def test_a_layer_that_runs_on_the_second_batch_only():
    class Choice(Branches):
        def forward(self, x):
            return super().forward(x) if x.shape[0] > 8 else self.head(self.a(x))

    torch.manual_seed(0)
    data = [torch.randn(8, 12), torch.randn(40, 12)]
    result = quantize_(Choice(), data, 4, GPTQ())
    tokens_of = {x.geometry.name: x.report.tokens for x in result.layers}
    assert tokens_of == {"a": 48, "b": 40, "c": 80, "head": 48}


def test_a_layer_that_runs_more_often_on_longer_batches():
    class Steps(Branches):
        def forward(self, x):
            hidden = torch.zeros_like(x[:, 0])
            for step in x.unbind(1):
                hidden = torch.tanh(self.a(hidden + step))
            return self.head(self.c(self.b(hidden)))

    torch.manual_seed(0)
    data = [torch.randn(4, length, 12) for length in (1, 5)]
    result = quantize_(Steps(), data, 4, GPTQ())
    assert [layer.report.tokens for layer in result.layers] == [4 + 20, 8, 8, 8]


ROUTED = {
    GPTQ(): ("gptq", "its errors are those on the tokens of the quantised model alone"),
    GPTQR(): ("gptq-r", "its errors are those on the tokens of the quantised model alone"),
    GPTAQ(): ("gptq", "it was rounded by gptq, not gptaq"),
    GPTAQR(): ("gptq-r", "it was rounded by gptq-r, not gptaq-r"),
    QEP(): ("gptq", "it was rounded by gptq, not qep"),
}


@pytest.mark.parametrize("method", ROUTED, ids=str)
def test_a_layer_that_is_given_other_tokens_does_without_the_other_model(method, tmp_path):
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.expert = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x):
            return self.expert(x[self.gate(x).sum(1) > 0])

    torch.manual_seed(0)
    data = vectors(4, 64)
    alone, said = ROUTED[method]
    model, plain = Routed(), Routed()
    plain.load_state_dict(model.state_dict())
    fresh = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=rf"^layer 'expert': other tokens reach it .* {said}$"):
        found = quantize_(model, data, 2, method, checkpoint_dir=tmp_path)
    assert [layer.method for layer in found.layers] == [method.name, alone]
    quantize_(plain, data, 2, uncrossed(method), settings=Settings(measure=False))
    if method == uncrossed(method):
        assert torch.equal(model.expert.weight, plain.expert.weight)
    again = quantize_(fresh, data, 2, method, checkpoint_dir=tmp_path, resume=True)
    assert again == found and torch.equal(fresh.expert.weight, model.expert.weight)


@pytest.mark.parametrize("measure", [True, False])
def test_activations_must_be_finite(measure):
    model = chain()
    model[2][0].bias.data[1] = math.inf
    with pytest.raises(ConfigError, match=r"layer '4': (inputs|reference) must be finite"):
        quantize_(model, vectors(), 4, GPTQ(), settings=Settings(measure=measure))
    data = vectors()
    data[1][0, 0] = math.nan
    with pytest.raises(ConfigError, match=r"^calibration batch \d, .*, must be finite"):
        quantize_(chain(), data, 4, GPTQ())


def test_sequences_must_fit_the_model_before_any_work():
    pytest.importorskip("transformers")
    for model, kind in ((llama(), tokens), (bert(), tokens), (gpt2(), tokens)):
        data = [*kind(2), torch.ones(1, 40, dtype=torch.int64)]
        with pytest.raises(ConfigError, match=r"at most the model's 32 tokens long, not 40$"):
            quantize_(model, data, 4, GPTQ())
        assert not list(compressed_layers(model))


@pytest.mark.filterwarnings("error")
def test_too_few_tokens_are_told():
    with pytest.warns(UserWarning, match=r"layer '0': .* a token for each of 12 inputs, not 8"):
        quantize_(chain(), vectors(1), Recipe({"0": Int4()}), GPTQ())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 8 bytes. Error code 12"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("place", [nn.LayerNorm, rescomp.Statistics])
def test_memory_that_runs_out_in_the_model_or_the_sums(monkeypatch, error, place):
    def out(*args, **kwargs):
        raise error

    monkeypatch.setattr(place, "forward" if place is nn.LayerNorm else "add", out)
    with pytest.raises(ConfigError, match=r"must fit into memory.*lower the rows of a batch"):
        quantize_(chain(), vectors(), 4, GPTQ())


def test_memory_that_really_runs_out(monkeypatch):
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: x.expand(10**15, *x.shape).clone())
    with pytest.raises(ConfigError, match=r"must fit into memory"):
        quantize_(chain(), vectors(), 4, GPTQ())


def test_an_error_that_only_mentions_memory_is_one_of_the_data(monkeypatch):
    def shape(self, x):
        return x.to(memory_format=torch.channels_last)

    monkeypatch.setattr(nn.LayerNorm, "forward", shape)
    with pytest.raises(
        ConfigError, match=r"^model must accept calibration .* RuntimeError: required rank"
    ):
        quantize_(chain(), vectors(), 4, GPTQ())


def test_bad_input_is_refused():
    data = vectors()
    for bits in (1, 5, "4"):
        with pytest.raises(ConfigError, match=rf"^bits must be 2, 3, 4 or 8, not {bits!r}$"):
            quantize_(chain(), data, bits, GPTQ())
    with pytest.raises(UnsupportedLayerError, match=r"'0': format must be int8.*not 'int4'; use"):
        quantize_(chain(), data, Recipe({"0": New()}), GPTQ())
    with pytest.raises(ConfigError, match=r"^method must be one of .*GPTQ\(\), not 'gptq'$"):
        quantize_(chain(), data, 4, "gptq")
    with pytest.raises(RecipeError, match="did you mean"):
        quantize_(chain(), data, Recipe({"2.9": Int4()}), GPTQ())
    with pytest.raises(ConfigError, match="at least one batch, not none"):
        quantize_(chain(), [], 4, GPTQ())
    with pytest.raises(ConfigError, match=r"at least one layer, not none"):
        quantize_(chain(), data, Recipe({"*": None}), GPTQ())
    with pytest.raises(
        ConfigError, match=r"^model must accept calibration batch 1, float32 \[8, 5\],"
    ):
        quantize_(chain(), vectors(width=5), 4, GPTQ())
    with pytest.raises(ConfigError, match=r"must hold a linear layer or a convolution, not none"):
        quantize_(nn.Sequential(nn.Embedding(4, 4)), [torch.zeros(3, 3).long()], 4)
    broken = chain()
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(WeightError, match=r"layer '0': weight must be finite"):
        quantize_(broken, data, 4, GPTQ())
    done = chain()
    quantize_(done, data, 4, GPTQ())
    with pytest.raises(ConfigError, match=re.escape("must not be compressed twice: 0, 2.0, 4")):
        quantize_(done, data, 4, GPTQ())


def test_tokens_that_are_masked_do_not_count():
    pytest.importorskip("transformers")
    result = quantize_(bert(), masked(), Recipe({"encoder.*": Int8()}), GPTQ())
    assert {layer.report.tokens for layer in result.layers} == {4 * (10 + 7 + 4)}


def test_tokens_are_masked_where_rows_are_joined():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc, self.head = nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask):
            x = self.embed(input_ids)
            x = self.fc(x.flatten(0, 1)).view_as(x)
            return self.head(x[:, 0])

    recipe = Recipe({"*": Int8(), "embed": None})
    result = quantize_(Joined(), masked(), recipe, GPTQ())
    assert [layer.report.tokens for layer in result.layers] == [4 * (10 + 7 + 4), 4 * 3]


class Experts(nn.Module):
    """Experts of which each token sees one, by what the layer before has made of it."""

    def __init__(self, seed, count=6, kind=lambda: nn.Linear(16, 16)):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(16, 8)
        self.gate = nn.Linear(16, count, bias=False)
        self.experts = nn.ModuleList(kind() for _ in range(count))

    def forward(self, x):
        x = self.embed(x).flatten(0, -2)
        weights, chosen = self.gate(x).softmax(-1).max(-1)
        out = x.clone()
        for number, expert in enumerate(self.experts):
            if bool((rows := chosen == number).any()):
                out[rows] += weights[rows, None] * expert(x[rows])
        return self.head(out)


def routed(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 16, generator=generator) for _ in range(2)]


INT2 = Recipe({"*": vq.Int2(group=16)})


@pytest.mark.filterwarnings("ignore:layer .* statistics should")
def test_experts_that_tokens_stop_reaching_are_rounded_to_nearest_and_named():
    lost = refused = 0
    for seed in range(12):
        model = Experts(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = quantize_(
                    model, routed(seed), INT2, GPTQ(), settings=Settings(measure=False)
                )
            except ConfigError as error:
                assert re.match(
                    r"layers must run on the calibration data, but 'experts", str(error)
                )
                assert isinstance(model.embed.weight, nn.Parameter)
                refused += 1
                continue
        nearest = [layer.geometry.name for layer in found.layers if layer.method == "rtn"]
        texts = [str(each.message) for each in caught]
        named = [t for t in texts if re.match(r"layer 'experts.\d': no token reached it once", t)]
        assert [re.findall("'(.*?)'", text)[0] for text in named] == nearest
        lost += len(nearest)
    assert lost and refused


def sequence():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))


@pytest.mark.filterwarnings("ignore:layer .* (statistics should|other tokens|no token)")
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("method", [GPTQ(), GPTAQ()], ids=str)
def test_experts_that_are_sequences_are_no_blocks_of_the_model(method, keyed):
    finished = 0
    for seed in range(4):
        model = Experts(seed, kind=sequence)
        if keyed:
            held = {str(number): expert for number, expert in enumerate(model.experts)}
            model.experts = nn.ModuleDict(held)
            model.experts.__class__ = type("Keyed", (nn.ModuleDict,), {"__iter__": _values})
        data = [torch.cat(routed(seed)), *routed(seed + 100)]
        try:
            assert len(quantize_(model, data, INT2, method).layers) == 15
        except ConfigError as error:
            assert re.match(r"layers must run on the calibration data, but 'experts", str(error))
            continue
        finished += 1
    assert finished


def _values(modules):
    return iter(modules.values())


@pytest.mark.filterwarnings("ignore:layer .* other tokens reach it")
@pytest.mark.parametrize("measure", [True, False])
@pytest.mark.parametrize("data", [None, (), "routed", "generator"])
def test_rounding_to_nearest_needs_no_data_and_refuses_no_expert(data, measure):
    batches = {"routed": routed(1), "generator": iter(routed(1))}.get(data, data)
    alone = Experts(1)
    model = copy.deepcopy(alone)
    found = quantize_(model, batches, INT2, RTN(), settings=Settings(measure=measure))
    assert {layer.method for layer in found.layers} == {"rtn"} and len(found.layers) == 9
    quantize_(alone, None, INT2, settings=Settings(measure=False))
    assert all(map(torch.equal, model.state_dict().values(), alone.state_dict().values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_fails_leaves_the_model_and_can_be_tried_again(tmp_path, dtype):
    class Stop(BaseException):
        pass

    def stop(done, total, name):
        if done == total:
            raise Stop

    model = chain().to(dtype)
    before = copy.deepcopy(model)
    data = [batch.to(dtype) for batch in vectors()]
    settings = {"checkpoint_dir": tmp_path, "settings": Settings(measure=False)}
    with pytest.raises(Stop):
        quantize_(model, data, 4, GPTQ(), progress=stop, **settings)
    assert list(model.state_dict()) == list(before.state_dict())
    assert all(map(torch.equal, model.state_dict().values(), before.state_dict().values()))
    quantize_(model, data, 4, GPTQ(), resume=True, **settings)
    quantize_(before, data, 4, GPTQ(), settings=settings["settings"])
    assert all(map(torch.equal, model.state_dict().values(), before.state_dict().values()))


def test_a_batch_that_a_later_block_refuses_is_named():
    class Picky(nn.Module):
        def forward(self, x):
            if len(x) == 3:
                raise RuntimeError("three")
            return x

    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), Picky())
    data = [torch.randn(8, 12), torch.randn(3, 12)]
    with pytest.raises(
        ConfigError,
        match=r"^model must accept calibration batch 2, float32 \[3, 12\], but .*: three",
    ):
        quantize_(nn.Sequential(model, nn.Linear(12, 4)), data, 4, GPTQ())


def test_roundings_that_remain_rest_in_the_unquantised_model():
    data, recipe = vectors(3), vq.Recipe({"*": vq.Int4(group=8)})
    names = ["0", "2.0", "4"]
    ours, theirs = chain(), chain()
    attach(ours, Rounding(4, symmetric=True), names)
    found = quantize_(ours, data, recipe, GPTAQ())
    other = ActivationQuantizer(theirs, names, 4)
    want = quantize_(theirs, data, recipe, GPTAQ(), activations=other)
    assert found.layers == want.layers
    assert all(torch.equal(ours(x), theirs(x)) for x in data)
