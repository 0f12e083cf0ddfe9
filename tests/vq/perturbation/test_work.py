"""What is done to each block: both weights at hand, codes stored, trouble survived."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.rescomp.models import CASES, Shared, chain, vectors
from vq.activations.tokens import ActivationQuantizer
from vq.formats.model import compressed_layers
from vq.layers import candidates
from vq.learning.fitting import Fitter
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.door import learn_scalars_
from vq.perturbation.mask import Mask
from vq.perturbation.work import Learner

BOTH = Composition(Perturb(Mask(1), 0.03), Clip(0.1))
RECIPE = vq.Recipe({"*": vq.Int2(group=8, zeros=True)})


def learnt(build=chain, data=None, composition=BOTH, recipe=RECIPE, **settings):
    torch.manual_seed(0)
    original = build().eval()
    model = copy.deepcopy(original)
    given = {"epochs": 4, "held_out": 0, "progress": False} | settings
    data = vectors(6, rows=32) if data is None else data
    return original, model, learn_scalars_(model, data, recipe, composition, **given)


def test_the_reference_is_the_unquantised_model_and_blocks_feed_each_other(monkeypatch):
    seen, errors = [], []
    do = Learner.do

    def watched(self, stage):
        fitter = self._fitter
        goal = fitter.goal(stage)
        seen.append([t for one in fitter._wanted(stage) for t in one])
        errors.append(fitter.error(stage, goal))  # of this block's original weights
        return do(self, stage)

    monkeypatch.setattr(Learner, "do", watched)
    data = vectors(3, rows=32)
    original, _, _ = learnt(data=data)
    first, _, last = seen
    with torch.no_grad():
        for batch, x in enumerate(data):
            assert torch.equal(first[batch], original[0](x))
            assert torch.equal(last[batch], original(x))
    assert errors[0] == 0 and errors[1] > 0 and errors[2] > 0


@pytest.mark.parametrize(
    "case", ["gpt2", "convolutions", "keywords", "branches", "skips", "normed"]
)
@pytest.mark.filterwarnings("ignore:block .* calibration should give more values")
def test_models_of_all_kinds_end_as_ordinary_layers(case):
    if case == "gpt2":
        pytest.importorskip("transformers")
    build, data = CASES[case]
    kind, layers = vq.Int3(group=8), candidates(build())
    wanted = [n for n, m in layers if not isinstance(m, nn.Embedding) and n != "lm_head"]
    recipe = vq.Recipe(dict.fromkeys(wanted, kind))
    narrow = Composition(Perturb(Mask(0), 0.03), Clip(0.1))
    original, _, result = learnt(build, data(2), narrow, recipe, epochs=2)
    _, model, _ = learnt(build, data(2), narrow, recipe, epochs=2)
    assert len(result.blocks) > 0 and all(b.after <= b.before for b in result.blocks)
    layers = list(compressed_layers(model))
    assert len(layers) == len(recipe.rules) == len(result.layers)
    for layer in layers:
        assert layer.weight.roles == ("weight",) and not layer.module.weight.isnan().any()
    rest = {n: t for n, t in model.state_dict().items() if "parametrizations" not in n}
    assert all(torch.equal(t, original.state_dict()[n]) for n, t in rest.items())


def test_shared_weights_stay_shared():
    _, model, result = learnt(lambda: Shared(weight_only=True), vectors(3, rows=32))
    assert [one.name for one in result.blocks] == ["model"]
    first, last = model.blocks[0].fc1, model.blocks[2].fc1
    assert torch.equal(first.weight, last.weight)
    assert first.parametrizations.weight.original is last.parametrizations.weight.original


def test_a_loss_that_diverges_leaves_its_block_at_its_start_and_says_so(monkeypatch):
    original, _, plain = learnt()
    fit = Fitter.fit

    def wild(self, stage, goal, groups, begin):
        if stage.name == "2.0":
            groups = [group | {"lr": 1e30} for group in groups]
        return fit(self, stage, goal, groups, begin)

    monkeypatch.setattr(Fitter, "fit", wild)
    with pytest.warns(
        UserWarning, match=r"loss finite, not nan, in '2\.0', .*; it stays as rounded"
    ):
        _, model, result = learnt()
    names = [one.name for one in result.blocks]
    assert names == ["0", "2.0", "4"] and result.blocks[0] == plain.blocks[0]
    assert result.blocks[1].after == result.blocks[1].before == plain.blocks[1].before
    start = BOTH.weight(result.layers[1].geometry, original[2][0].weight.data)
    with torch.no_grad():
        assert torch.equal(model[2][0].weight, start(original[2][0].weight))
    assert result.layers[1].moved == 0 < result.layers[0].moved


def test_few_values_are_a_warning():
    with pytest.warns(UserWarning) as warned:
        learnt(data=[torch.randn(1, 12)], epochs=1)
    assert str(warned[0].message) == (
        "block '0': calibration should give more values than learn, 98, not 16; give more of it, "
        "or let less learn"
    )


def test_weights_learn_under_rounded_activations_beside_an_unrounded_model(monkeypatch):
    wanted, errors = [], {}
    goal = Fitter.goal

    def watched(self, stage):
        found = goal(self, stage)
        wanted.append(found._wanted)
        return found

    monkeypatch.setattr(Fitter, "goal", watched)
    original, data = chain(), vectors(6, rows=32)
    for bits in (None, 8, 3):
        model = copy.deepcopy(original)
        rounding = bits and ActivationQuantizer(model, ["0", "2.0", "4"], bits)
        settings = {"epochs": 4, "held_out": 0, "progress": False, "activations": rounding}
        found = learn_scalars_(model, data, RECIPE, BOTH, **settings)
        errors[bits] = [one.before for one in found.blocks]
        assert all(one.after < one.before for one in found.blocks)
    assert torch.equal(wanted[0][0][0], wanted[6][0][0]), "of the unrounded model"
    assert errors[3][0] > errors[8][0] != errors[None][0]
