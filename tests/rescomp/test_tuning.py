"""Blocks that are tuned as soon as they are solved: what learns, and what stays."""

import copy

import pytest
import torch
from torch import nn

import vq
from rescomp import QEP, RTN, ActivationQuantizer, Tuning, quantize_
from rescomp.tuning import Tuner
from tests.processes import two_processes
from tests.rescomp.models import Branches, Shared, chain, llama, tokens, vectors
from vq.errors import ConfigError, ResumeError, TrainingError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.rates import Rates
from vq.learning.rules.signs import Freezing

KIND = vq.SSVQ(d=4, k=6, scale="output")
PARITY = vq.SSVQ(d=4, k=6, parity=True, scale="output")
RECIPE = vq.Recipe({"*": KIND})
TUNING = Tuning(epochs=12, rates=Rates(1e-2, 1e-2, 1e-2, scales=1e-2), held_out=0)


def solved(build, data, tuning=TUNING, recipe=RECIPE, **settings):
    torch.manual_seed(0)
    original = build().eval()
    model = copy.deepcopy(original)
    return original, model, quantize_(model, data, recipe, QEP(), tuning=tuning, **settings)


@torch.no_grad()
def error(model, original, data):
    pairs = [(model(x), original(x)) for x in data]
    return sum(float((a - b).square().sum()) for a, b in pairs)


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ("build", "kind"),
    [(chain, KIND), (Branches, vq.VQ(d=2, k=8, scale="layer")), (Branches, PARITY)],
)
def test_tuning_helps_and_the_file_is_the_model(build, kind, tmp_path):
    recipe, data = vq.Recipe({"*": kind}), vectors(6)
    original, plain, before = solved(build, data, None, recipe)
    _, model, result = solved(build, data, TUNING, recipe)
    assert not before.blocks and all(one.after < one.before for one in result.blocks)
    assert [x.geometry for x in result.layers] == [x.geometry for x in before.layers]
    assert error(model, original, data) < error(plain, original, data)
    vq.save(model, tmp_path / "x.vq.safetensors")
    read = vq.load(tmp_path / "x.vq.safetensors", into=build().eval())
    assert all(torch.equal(read(x), model(x)) for x in data)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_blocks_learn_under_rounded_activations():
    data, errors = vectors(6), []
    for tuning in (None, TUNING):
        torch.manual_seed(0)
        original = chain().eval()
        model = copy.deepcopy(original)
        rounding = ActivationQuantizer(model, ["0", "2.0", "4"], 4)
        result = quantize_(model, data, RECIPE, QEP(), tuning=tuning, activations=rounding)
        errors.append(error(model, original, data))
        assert all(one.after < one.before for one in result.blocks)
    assert len(result.blocks) == 3 and errors[1] < errors[0]


def test_all_that_has_a_rate_learns_and_nothing_else():
    def changed(**rates):
        rates = Rates(**{"signs": 0, "codebooks": 0, "rest": 0} | rates)
        _, model, _ = solved(chain, vectors(), Tuning(epochs=6, rates=rates, held_out=0))
        found = {name for name, t in model.state_dict().items() if not t.equal(before[name])}
        return {name.removeprefix("0.parametrizations.weight.") for name in found if name[0] == "0"}

    _, plain, _ = solved(chain, vectors(), None)
    before = plain.state_dict()
    assert changed(signs=1e-2, codebooks=1e-2) == {"original0", "original1"}
    assert changed(codebooks=1e-2) == {"original0"}
    assert changed(scales=1e-2) == {"0.unit"}
    assert changed(rest=1e-2) == {"0.bias"}


def test_the_reference_stays_the_unquantised_model(monkeypatch):
    seen = []
    tune = Tuner.tune

    def watched(self, stage, found, weights):
        seen.append([t for x in self._fitter._wanted(stage) for t in x])
        return tune(self, stage, found, weights)

    monkeypatch.setattr(Tuner, "tune", watched)
    original, model, _ = solved(chain, vectors(2))
    assert not torch.equal(original[0].bias, model[0].bias)
    first, _, last = seen
    for batch, x in enumerate(vectors(2)):
        assert torch.equal(first[batch], original[0](x)) and torch.equal(last[batch], original(x))


def test_the_blocks_behind_are_fed_with_what_a_tuned_one_gives():
    _, _, first = solved(chain, vectors())
    _, plain, _ = solved(chain, vectors(), None)
    _, model, second = solved(chain, vectors(), Tuning(epochs=1, rates=Rates(1e3), held_out=0))
    assert same(plain, model) and second.blocks[1].before != first.blocks[1].before


def test_a_block_that_does_not_get_better_on_held_out_batches_stays_as_it_was():
    wild = Tuning(epochs=1, rates=Rates(1e3, 1e3, 1e3, scales=1e3), held_out=0.5)
    _, plain, _ = solved(chain, vectors(), None)
    _, model, result = solved(chain, vectors(), wild)
    assert all(one.after == one.before for one in result.blocks) and same(plain, model)


def test_signs_keep_their_parity_and_freeze():
    torch.manual_seed(0)
    freezing = Freezing(interval_steps=1, warmup=0, threshold_start=0, threshold_end=0)
    rates = Rates(signs=0.03, codebooks=1e-2, rest=1e-2, scales=1e-2)  # others help surely
    tuning = Tuning(epochs=20, rates=rates, held_out=0, freezing=freezing)
    _, model, _ = solved(chain, vectors(), tuning, vq.Recipe({"*": PARITY}))
    layers = list(compressed_layers(model))
    assert all((torch.signbit(layer.latent).sum(1) % 2 == 0).all() for layer in layers)
    frozen = [layer.latent.abs() >= FROZEN for layer in layers]
    assert any(one.any() for one in frozen) and not all(one.all() for one in frozen)
    vq.finetune_(model, [(x, x[:, :4]) for x in vectors(2)], epochs=1, loss=nn.MSELoss())
    for one, layer in zip(frozen, layers, strict=True):
        assert (layer.latent.abs() >= FROZEN)[one].all()


def test_codebooks_of_several_blocks_and_tensors_that_blocks_share_stay():
    recipe = vq.Recipe({"*": vq.SSVQ(d=4, k=6, scale="output", shared="one")})
    _, plain, _ = solved(chain, vectors(), None, recipe)
    _, model, _ = solved(chain, vectors(), TUNING, recipe)
    pairs = list(zip(compressed_layers(plain), compressed_layers(model), strict=True))
    assert all(torch.equal(a.codebook, b.codebook) for a, b in pairs)
    assert not all(torch.equal(a.module.weight, b.module.weight) for a, b in pairs)
    assert len({id(b.codebook) for _, b in pairs}) == 1
    _, _, result = solved(lambda: Shared(weight_only=True), vectors())
    assert [one.name for one in result.blocks] == ["model"]


def test_scalars_keep_their_codes_beside_norms_that_learn():
    _, plain, _ = solved(chain, vectors(), None, 4)
    _, model, result = solved(chain, vectors(), TUNING, 4)
    assert result.blocks[0].after < result.blocks[0].before
    codes = [layer.to_layer() for layer in compressed_layers(model)]
    assert len(codes) == 3 and not torch.equal(model[0].bias, plain[0].bias)
    assert torch.equal(model[0].weight, plain[0].weight)


def test_look_ahead_measures_a_block_later():
    pytest.importorskip("transformers")
    recipe = vq.Recipe({"*_proj": KIND})
    found = [
        solved(llama, tokens(2), Tuning(epochs=1, look_ahead=n, held_out=0), recipe)[2].blocks
        for n in (0, 1)
    ]
    assert [one.name for one in found[1]] == [f"model.layers.{i}" for i in range(3)]
    assert found[0][0].before != found[1][0].before


class _Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_runs_end_like_undisturbed_ones(tmp_path, after):
    original, want, result = solved(chain, vectors())

    def stop(done, total, layer):
        if done == after + 1:  # the block before is stored
            raise _Stop

    stopped = copy.deepcopy(original)
    settings = {"recipe": RECIPE, "method": QEP(), "tuning": TUNING, "checkpoint_dir": tmp_path}
    with pytest.raises(_Stop):
        quantize_(stopped, vectors(), **settings, progress=stop)
    assert same(stopped, original)
    for _ in range(2):  # the second time, all is there
        model = copy.deepcopy(original)
        assert quantize_(model, vectors(), **settings, resume=True) == result
        assert same(model, want)
    with pytest.raises(ResumeError, match="but its tuning differs"):
        settings["tuning"] = None
        quantize_(copy.deepcopy(original), vectors(), **settings, resume=True)


def test_a_loss_that_diverges_leaves_the_model_as_it_was():
    original = chain().eval()
    model = copy.deepcopy(original)
    with pytest.raises(TrainingError, match=r"must keep its loss finite, not .*, in '0', which is"):
        quantize_(model, vectors(), RECIPE, QEP(), tuning=Tuning(rates=Rates(rest=1e25)))
    assert same(model, original)


def worker(rank, folder):
    _, model, result = solved(chain, vectors(5)[rank::2])
    torch.save((model.state_dict(), [one.after for one in result.blocks]), folder / f"{rank}.pt")


def test_processes_tune_one_model(tmp_path):
    folder = two_processes(worker, tmp_path)
    ours, theirs = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
    _, _, alone = solved(chain, vectors(5))
    assert ours[1] == theirs[1]
    for one, two in zip(alone.blocks, ours[1], strict=True):
        assert two == pytest.approx(one.after, rel=0.5) and two < one.before


def test_what_cannot_be_tuned_is_refused_before_work():
    with pytest.raises(ConfigError, match=r"^tuning must come with a method that compensates, not"):
        quantize_(chain(), vectors(), 4, RTN(), tuning=Tuning())
    for match, settings in (
        (r"^block-wise training has 1 problem:\n- epochs must be positive, not 0$", {"epochs": 0}),
        (r"held_out must be at least 0 and below 1, not 1$", {"held_out": 1}),
        (r"^tuning must have a rate above 0, not none$", {"rates": Rates(0, 0, 0)}),
    ):
        with pytest.raises(ConfigError, match=match):
            Tuning(**settings)
