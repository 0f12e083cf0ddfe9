"""compress_: what it changes, what it leaves alone, what it refuses."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Int2, Int3, Int4, Int8, Recipe
from vq.errors import ConfigError, RecipeError, UnsupportedLayerError, WeightError
from vq.formats.model import compressed_layers, provenance_of

METHODS = [
    SSVQ(d=8, k=16),
    SSVQ(d=4, k=8, scale="output"),
    SSVQ(d=8, k=16, axis="out"),
    SSVQ(d=4, k=16, axis="out", scale="output", tile_outputs=4),
    VQ(d=4, k=32),
    VQ(d=2, k=16, scale="output", axis="out"),
    Int8(),
    Int4(group=20),
    Int3(group=16, zeros=True),
    Int2(zeros=True),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_weights_are_integers_times_scale_and_near_the_original(method):
    model = Net()
    before = copy.deepcopy(model)
    result = vq.compress_(model, Recipe({"fc1": method, "fc2": method}))
    for layer, original in zip(compressed_layers(model), (before.fc1, before.fc2), strict=True):
        weight = layer.module.weight.detach()
        assert weight.shape == original.weight.shape and weight.dtype == torch.float32
        error = (weight - original.weight).square().sum() / original.weight.square().sum()
        assert error < (1e-4 if isinstance(method, Int8) else 0.5)
        stored = layer.to_layer()
        if stored.geometry.group:
            continue  # tests/vq/formats/test_grids.py compares them level by level
        ratio = weight.numpy() / (stored.scale if len(stored.scale) == 1 else stored.scale[:, None])
        assert np.abs(ratio - np.round(ratio)).max() < 1e-3
        assert np.abs(np.round(ratio)).max() <= 127
    assert result.kept == ["stem", "head"]
    assert [r.geometry.name for r in result.layers] == ["fc1", "fc2"]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_reported_error_is_that_of_the_weights(method):
    model = Net()
    original = model.fc1.weight.detach().clone()
    result = vq.compress_(model, Recipe({"fc1": method}))
    difference = (model.fc1.weight.detach() - original).square().sum() / original.square().sum()
    assert result.layers[0].relative_error == pytest.approx(float(difference), rel=1e-4)


def test_signs_of_the_original_survive():
    model = Net()
    original = model.fc1.weight.detach().clone()
    vq.compress_(model, Recipe({"fc1": SSVQ()}))
    weight = model.fc1.weight.detach()
    nonzero = weight != 0
    assert nonzero.float().mean() > 0.9
    assert torch.equal(torch.sign(weight[nonzero]), torch.sign(original[nonzero]))


def test_more_codewords_give_less_error():
    errors = []
    for k in (4, 16, 64, 256):
        model = nn.Sequential(nn.Linear(256, 256))
        torch.manual_seed(0)
        nn.init.normal_(model[0].weight)
        errors.append(vq.compress_(model, Recipe({"*": SSVQ(d=8, k=k)})).layers[0].relative_error)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1


def test_gaussian_error_is_that_of_the_literature():
    """reference: 0.192 for SSVQ d=8 k=16 and 0.185 for VQ d=4 k=64 on 480,000 Gaussian weights."""
    for method, expected in ((SSVQ(d=8, k=16), 0.192), (VQ(d=4, k=64), 0.185)):
        model = nn.Sequential(nn.Linear(600, 800, bias=False))
        torch.manual_seed(0)
        nn.init.normal_(model[0].weight)
        error = vq.compress_(model, Recipe({"*": method})).layers[0].relative_error
        assert error == pytest.approx(expected, abs=0.004)


def test_module_keeps_its_class_and_its_forward():
    model = Net()
    vq.compress_(model, Recipe({"fc*": SSVQ()}))
    assert isinstance(model.fc1, nn.Linear)
    x = torch.randn(3, 64)
    expected = nn.functional.linear(x, model.fc1.weight, model.fc1.bias)
    assert torch.equal(model.fc1(x), expected)


def test_equal_seeds_give_equal_models():
    def run(seed):
        torch.manual_seed(0)
        model = Net()
        vq.compress_(model, Recipe({"fc*": SSVQ()}), seed=seed)
        return model.fc1.weight.detach()

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_half_precision_weights_keep_their_dtype():
    model = nn.Sequential(nn.Linear(64, 32).to(torch.bfloat16))
    vq.compress_(model, Recipe({"*": SSVQ()}))
    assert model[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("fill", [0.0, 0.25])
def test_constant_layers_are_represented(fill):
    model = nn.Sequential(nn.Linear(64, 32))
    nn.init.constant_(model[0].weight, fill)
    vq.compress_(model, Recipe({"*": SSVQ()}))
    torch.testing.assert_close(model[0].weight, torch.full((32, 64), fill))


@pytest.mark.parametrize("method", [SSVQ(k=4, scale="output"), VQ(k=16, scale="output")])
def test_silent_outputs_stay_silent(method):
    """No codeword need be zero; an output without weights must not come alive for that."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32))
    with torch.no_grad():
        model[0].weight[3] = 0
    vq.compress_(model, Recipe({"*": method}))
    peaks = model[0].weight.detach().abs().amax(dim=1)
    assert peaks[3] < 1e-25 and (peaks[[0, 1, 2, 4]] > 0.01).all()


def test_provenance_remembers_recipe_and_seed():
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ()}), seed=7)
    assert provenance_of(model).seed == 7
    assert '"method":"ssvq"' in provenance_of(model).recipe


# Refusals: one clear error, and the model is as it was.


def refused(recipe, error, message, prepare=lambda model: None):
    model = Net()
    prepare(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error) as caught:
        vq.compress_(model, recipe)
    assert str(caught.value) == message
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) or k == "fc1.weight" for k in before)


def test_misfits_are_reported_together():
    refused(
        Recipe(
            {
                "head": VQ(d=4, k=64),
                "fc1": SSVQ(d=5, axis="auto"),
                "fc2": VQ(d=4, k=2000, shared="b"),
                "stem": SSVQ(d=3),
            }
        ),
        RecipeError,
        "recipe has 3 problems:\n"
        "- layer 'stem': tile_outputs must be a multiple of d = 3, not 16\n"
        "- layer 'head': k must be at most its 40 sub-vectors, not 64\n"
        "- codebook 'b': k must be at most the 384 sub-vectors of its layers, not 2000",
    )


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))


def test_unsupported_layers_are_named_with_a_way_out():
    def prepare(model):
        model.odd = Unknown()
        model.bilinear = nn.Bilinear(2, 2, 2)

    refused(
        Recipe({"*": Int8()}),
        UnsupportedLayerError,
        "model has 2 problems:\n"
        "- layer 'odd' must be one of Linear, Conv1d, Conv2d, Embedding, not Unknown; "
        "keep it by the rule 'odd': None\n"
        "- layer 'bilinear' must be one of Linear, Conv1d, Conv2d, Embedding, not Bilinear; "
        "keep it by the rule 'bilinear': None",
        prepare,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad):
    def prepare(model):
        with torch.no_grad():
            model.fc1.weight[0, :3] = bad

    refused(
        Recipe({"fc*": SSVQ()}),
        WeightError,
        "model has 1 problem:\n- layer 'fc1': weights must be finite, but 3 are NaN or infinite",
        prepare,
    )


def test_compressing_twice_is_refused():
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ()}))
    with pytest.raises(ConfigError, match=r"^layers must not be compressed twice: fc1; start"):
        vq.compress_(model, Recipe({"fc*": SSVQ()}))
    assert [layer.name for layer in compressed_layers(model)] == ["fc1"]


def test_assigning_to_a_compressed_weight_is_refused():
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ()}))
    with pytest.raises(ConfigError, match="must not be assigned to"):
        model.fc1.weight = torch.zeros(48, 64)


def test_a_bare_layer_is_refused():
    with pytest.raises(ConfigError, match=r"^model must contain its layers, not be one"):
        vq.compress_(nn.Linear(64, 16), Recipe({"*": SSVQ()}))


PADDED = (
    r"^layer '0': row 3, its padding, {}; give it scale 'output', store it in int8 or int4, or k"
)


def padded():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(40, 16, padding_idx=3), nn.Linear(16, 4))


@pytest.mark.parametrize("rule", [SSVQ(d=4, k=8), VQ(d=4, k=8), SSVQ(d=8, k=4, axis="out")])
def test_padding_that_is_no_longer_zero_is_named(rule):
    recipe = Recipe({"0": rule})
    message = PADDED.format("is zero and hardly stays so, as codewords are seldom zero")
    with pytest.warns(UserWarning, match=message):
        vq.plan(padded(), recipe)
    message = PADDED.format("was zero and is not any more, as no codeword is zero")
    with pytest.warns(UserWarning, match=message):
        vq.compress_(padded(), recipe, progress=False)


@pytest.mark.parametrize(
    "rule",
    [
        SSVQ(d=4, k=8, scale="output"),
        VQ(d=8, k=4, scale="output", axis="out"),
        vq.Int8(),
        vq.Int4(group=8),
        vq.Int2(group=8, zeros=True),
    ],
)
def test_padding_stays_zero_where_the_format_holds_zero(rule):
    model = padded()
    vq.plan(model, Recipe({"0": rule}))
    vq.compress_(model, Recipe({"0": rule}), progress=False)
    assert bool((model[0].weight[3].abs() < 1e-28).all())
    assert not model.half()[0].weight[3].any()


def test_padding_that_is_not_zero_or_has_no_values_is_not_spoken_of():
    model, recipe = padded(), Recipe({"0": SSVQ(d=4, k=8)})
    vq.plan(copy.deepcopy(model).to("meta"), recipe)
    with torch.no_grad():
        model[0].weight[3] = 1
    vq.plan(model, recipe)
    vq.compress_(model, recipe, progress=False)


UNMEASURED = (
    r"^batch norms must be measured again once weights change, but no data were given: the 1 of "
    r"this model .*; give inputs of all classes .* \(norms=False, --no-norms\)$"
)


def test_batch_norms_without_data_are_spoken_of_unless_they_are_to_stay():
    recipe = Recipe({"fc1": SSVQ(d=8, k=4)})
    with pytest.warns(UserWarning, match=UNMEASURED):
        vq.compress_(Net(), recipe, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vq.compress_(nn.Sequential(nn.Linear(16, 32)), Recipe({"0": SSVQ(d=8, k=4)}))
        model = Net()
        vq.compress_(model, recipe, norms=False, progress=False)
        assert not model.norm.running_mean.any()
        vq.compress_(model := Net(), recipe, norms=False, calibration=batches(), progress=False)
    assert not model.norm.running_mean.any()


def test_a_file_holds_the_statistics_that_were_measured(tmp_path):
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ(d=8, k=4)}), calibration=batches(), progress=False)
    vq.save(model, tmp_path / "model.vq.safetensors")
    same = vq.load(tmp_path / "model.vq.safetensors", into=Net())
    assert model.norm.running_mean.any()
    for name, values in model.norm.named_buffers():
        assert torch.equal(same.norm.get_buffer(name), values)
