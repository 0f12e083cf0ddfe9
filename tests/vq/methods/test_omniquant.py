"""OmniQuant: clipping and scales between layers learn, and the model is the file."""

import copy

import pytest
import torch

import vq
from tests.processes import two_processes
from tests.rescomp.models import llama, tokens
from tests.vq.perturbation import models
from tests.vq.perturbation.models import BLOCKS, LINEARS
from vq.activations.tokens import ActivationQuantizer
from vq.errors import ConfigError
from vq.layers import candidates
from vq.learning.checkpoint import StageCheckpoints
from vq.learning.fitting import Fitter
from vq.methods.duquant import spread_
from vq.methods.lwc import lwc_
from vq.methods.omniquant import omniquant_
from vq.methods.prefixquant import prefix_, round_statically_
from vq.perturbation.composition import Clip, Equalise, Perturb
from vq.perturbation.mask import Mask

RUN = {"epochs": 3, "held_out": 0, "progress": False}


def learnt(
    build=models.before, data=models.rows, recipe=LINEARS, method=omniquant_, bits=4, **more
):
    original = build()
    model = copy.deepcopy(original)
    linears = [n for n, m in candidates(model) if isinstance(m, torch.nn.Linear)]
    rounding = bits and ActivationQuantizer(model, linears, bits)
    result = method(model, data(), recipe, activations=rounding, **RUN | more)
    return original, model, result


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize(
    ("build", "data", "recipe"),
    [
        (models.grouped, models.tokens, BLOCKS),
        (models.before, models.rows, LINEARS),
        (models.behind, models.rows, LINEARS),
    ],
)
@pytest.mark.filterwarnings("ignore:equalisation left out", "ignore:block .* should give more")
def test_files_are_the_models_that_were_trained(build, data, recipe, tmp_path):
    extra = {"perturb": Perturb(Mask(2)), "look_ahead": 1}
    original, model, result = learnt(build, data, recipe, bits=None, **extra)
    assert all(one.after < one.before for one in result.blocks)
    assert any(one.trained for one in result.pairs) and result.layers[0].moved > 0
    vq.save(model, tmp_path / "x.vq.safetensors")
    read = vq.load(tmp_path / "x.vq.safetensors", into=build())
    with torch.no_grad():
        assert all(torch.equal(read(x), model(x)) for x in data())
    plain = copy.deepcopy(original)
    vq.compress_(plain, recipe)
    assert (
        vq.save(plain, tmp_path / "r.vq.safetensors").file_bytes
        == (tmp_path / "x.vq.safetensors").stat().st_size
    )
    assert {type(m) for m in model.modules()} >= {type(m) for m in original.modules()} - {
        torch.nn.Linear
    }


def test_scales_help_where_activations_are_rounded():
    errors = {}
    for name, method in (("lwc", lwc_), ("omniquant", omniquant_)):
        _, _, result = learnt(method=method)
        errors[name] = sum(one.after for one in result.blocks)
    assert errors["omniquant"] < 0.8 * errors["lwc"]
    assert [(one.block, one.trained) for one in result.pairs[:4]] == [
        ("0", 64), ("0", 64), ("0", 32), ("0", 32),
    ]  # fmt: skip


def test_the_unquantised_model_keeps_its_norms(monkeypatch):
    wanted = []
    goal = Fitter.goal

    def watched(self, stage):
        found = goal(self, stage)
        wanted.append(found._wanted[0][0])
        return found

    monkeypatch.setattr(Fitter, "goal", watched)
    original, model, _ = learnt()
    assert not torch.equal(original[0].norm1.weight, model[0].norm1.weight)
    with torch.no_grad():
        first = original[0](models.rows()[0])
        assert torch.equal(wanted[0], first) and torch.equal(wanted[1], original[1](first))


@pytest.mark.parametrize("rate", [1e30, 1e3])
@pytest.mark.filterwarnings("ignore:.*it stays as rounded at its start")
def test_blocks_that_fall_back_have_scales_of_1(rate, monkeypatch):
    monkeypatch.setattr("vq.perturbation.equivalence.Equivalences.begin", lambda *args: None)
    original, model, result = learnt(equalise=Equalise(rate), clip=Clip(1e3))
    assert all(one.after == one.before for one in result.blocks)
    for name, value in original.state_dict().items():
        if "norm" in name or "bias" in name:
            assert torch.equal(model.state_dict()[name], value), name
    assert all(layer.moved == 0 for layer in result.layers)


def test_stopped_runs_end_like_others_and_failures_change_nothing(tmp_path, monkeypatch):
    original, want, result = learnt()
    save = StageCheckpoints.save

    def stop(self, stage, held):
        save(self, stage, held)
        raise KeyboardInterrupt

    stopped = copy.deepcopy(original)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StageCheckpoints, "save", stop)
        patch.setattr("tests.vq.perturbation.models.before", lambda: stopped)
        patch.setattr(copy, "deepcopy", lambda model: model)
        learnt(models.before, checkpoint_dir=tmp_path)
    assert same(stopped, original)
    for _ in range(2):
        _, model, again = learnt(checkpoint_dir=tmp_path, resume=True)
        assert same(model, want) and again == result


def test_what_lies_around_the_blocks_has_no_pairs():
    recipe = vq.Recipe({"*": vq.Int4(group=16)})
    _, _, result = learnt(models.Ended, recipe=recipe, epochs=1)
    assert [one.name for one in result.blocks] == ["start", "blocks.0", "blocks.1", "end"]
    assert {one.block for one in result.pairs} == {"blocks.0", "blocks.1"}


def test_impossible_settings_are_refused():
    for match, settings in (
        (r"^equalisation has 1 problem:\n- rate must be positive, not 0$", {"rate": 0}),
        (r"strength must be from 0 to 1, not 2$", {"strength": 2}),
        (r"least must be positive, not 0$", {"least": 0}),
    ):
        with pytest.raises(ConfigError, match=match):
            Equalise(**settings)
    with pytest.raises(ConfigError, match=r"^composition must hold one part at least, not none$"):
        learnt(clip=None, equalise=None)


@pytest.mark.filterwarnings("ignore:block .* should give more values")
def test_a_prefix_leaves_the_pairs_of_norms(tmp_path):
    pytest.importorskip("transformers")
    model, data = llama(num_hidden_layers=2), tokens(3)
    recipe = vq.Recipe({"*_proj": vq.Int4(group=8)})
    prefix_(model, data, recipe, prefix=[9, 1])
    round_statically_(model, data, recipe, 8)
    with pytest.warns(UserWarning, match="o_proj, in 'model.layers.0' and 1 more: tokens in front"):
        result = omniquant_(model, data, recipe, epochs=1, progress=False)
    scaled = {one.name.partition(" ")[0] for one in result.pairs if one.reason is None}
    assert scaled == {"input_layernorm", "post_attention_layernorm"} and len(result.pairs) == 8
    path = tmp_path / "model.vq.safetensors"
    vq.save(model, path)
    loaded = vq.load(path, into=llama(num_hidden_layers=2))
    with torch.no_grad():
        assert all(torch.equal(loaded(x).logits, model(x).logits) for x in data)


def test_transforms_are_no_place_for_scales():
    model, data = models.before(), models.rows(2)
    spread_(model, data, LINEARS, steps=2, progress=False)
    match = "equalisation must not come on top of transforms .* what '0.attn.qkv' and 7 more read"
    with pytest.raises(ConfigError, match=match):
        omniquant_(model, data, LINEARS, **RUN)
    omniquant_(model, data, LINEARS, equalise=None, **RUN | {"epochs": 1})


def worker(rank, folder):
    _, model, result = learnt(data=lambda: [x[rank : rank + 1] for x in models.rows()])
    torch.save((model.state_dict(), [one.after for one in result.blocks]), folder / f"{rank}.pt")


def test_two_processes_are_one_with_steps_of_both(tmp_path):
    folder = two_processes(worker, tmp_path)
    ours, theirs = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    assert ours[0].keys() == theirs[0].keys() and ours[1] == theirs[1]
    assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
    original, alone, result = learnt()
    assert ours[1] == pytest.approx([one.after for one in result.blocks], rel=0.05)
    for name in ("0.norm1.weight", "0.norm1.bias", "0.attn.qkv.bias"):
        moved = (alone.state_dict()[name] - original.state_dict()[name]).abs().max()
        apart = (alone.state_dict()[name] - ours[0][name]).abs().max()
        assert apart < 0.2 * moved, name
