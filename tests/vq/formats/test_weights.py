"""What all compressed weights promise to torch and to training."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import vq
from vq import SSVQ, VQ, Int4, Int8, Recipe
from vq.clustering.cluster import KMeans
from vq.errors import ConfigError
from vq.formats.format import Original

ROLES = {
    SSVQ(d=4, k=4): ("codebook", "signs"),
    VQ(d=4, k=4): ("codebook",),
    Int8(): ("weight",),
    Int4(): ("weight",),
}


@pytest.mark.parametrize("kind", ROLES, ids=str)
def test_roles_name_what_is_trained(kind):
    matrix = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    layer = Original(kind.geometry("a", "linear", (6, 8)), matrix)
    (weight,) = kind.compress([layer], KMeans())
    originals = weight.originals(matrix)
    assert weight.roles == ROLES[kind] and len(originals) == len(weight.roles)
    for role, tensor in zip(weight.roles, originals, strict=True):
        assert weight.tensor(role, originals) is tensor
    assert weight.tensor("other", originals) is None
    assert weight.norm_scale(*originals) is None  # each has a scale of its own


def test_a_weight_is_taken_once_unless_it_is_shared():
    matrix = torch.ones(2, 4)
    layer = Original(Int8().geometry("a", "linear", (2, 4)), matrix)
    (weight,) = Int8().compress([layer], KMeans())
    weight.right_inverse(matrix)
    with pytest.raises(ConfigError, match=r"^layer 'a': a compressed weight must not be assigned"):
        weight.right_inverse(matrix)
    weight.share()
    weight.right_inverse(matrix)


CASTS = {
    "half": (lambda m: m.half(), torch.float16),
    "bfloat16": (lambda m: m.bfloat16(), torch.bfloat16),
    "double": (lambda m: m.double(), torch.float64),
    "to": (lambda m: m.to("cpu", torch.bfloat16), torch.bfloat16),
    "type": (lambda m: m.type(torch.float16), torch.float16),
    "there and back": (lambda m: m.half().float(), torch.float32),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("kind", ROLES, ids=str)
def test_the_weight_follows_a_cast_and_what_is_behind_it_does_not(kind, cast):
    apply, dtype = CASTS[cast]
    model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 8))
    model[1].weight = nn.Parameter(model[1].weight.detach())
    vq.compress_(model, Recipe({"*": kind}), progress=False)
    before, weight = copy.deepcopy(model.state_dict()), model[0].weight.detach()
    apply(model)
    assert model[0].weight.dtype == dtype and torch.equal(model[0].weight, weight.to(dtype))
    for name, tensor in model.state_dict().items():
        if "parametrizations" in name:
            assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])
    model(torch.ones(2, 16, dtype=dtype)).sum().backward()
    gradients = [p.grad.dtype for n, p in model.named_parameters() if "parametrizations" in n]
    assert set(gradients) == {torch.float32}


def test_tied_weights_follow_a_cast_together():
    model = nn.ModuleDict({"embed": nn.Embedding(32, 8), "head": nn.Linear(8, 32, bias=False)})
    model["head"].weight = model["embed"].weight
    vq.compress_(model, Recipe({"*": SSVQ(d=4, k=4)}), progress=False)
    other = copy.deepcopy(model).half()
    assert torch.equal(other["head"].weight, model["embed"].weight.half())
    assert torch.equal(other["embed"].weight, other["head"].weight)
    assert len(list(other.parameters())) == 2


def test_float16_is_warned_of_where_a_norm_has_the_scale():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
    recipe = Recipe({"0": SSVQ(d=4, k=4, scale="norm"), "2": SSVQ(d=4, k=4)})
    vq.compress_(model, recipe, progress=False)
    model.bfloat16().double()
    with pytest.warns(UserWarning, match=r"^layer '0': its scale is left to a norm, so that its o"):
        model.half()
    model.half()  # said once


def test_what_is_taken_off_a_copy_stays_with_the_original():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    vq.compress_(model, Recipe({"*": SSVQ(d=4, k=4)}), progress=False)
    x = torch.randn(2, 8)
    before = model(x)
    copied = copy.deepcopy(model)
    parametrize.remove_parametrizations(copied[0], "weight")
    assert type(copied[0].weight) is nn.Parameter and torch.equal(copied(x), before)
    again = copy.deepcopy(copied)
    parametrize.remove_parametrizations(again[1], "weight")
    assert torch.equal(model(x), before) and torch.equal(copied(x), before)
    assert parametrize.is_parametrized(copied[1])


@pytest.mark.parametrize("write", [pickle.dumps, lambda model: torch.save(model, io.BytesIO())])
def test_a_compressed_model_says_how_it_is_written(write):
    model = nn.Sequential(nn.Linear(8, 8))
    vq.compress_(model, Recipe({"*": Int8()}), progress=False)
    with pytest.raises(
        ConfigError, match=r"^layer '0': a compressed layer must not be pickled, .* by vq.save, or"
    ):
        write(model)
    torch.save(model.state_dict(), io.BytesIO())
