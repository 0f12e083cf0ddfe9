"""Scales between layers: exact in float64, the same at 1, and where they start."""

import pytest
import torch

from tests.rescomp.models import llama
from tests.rescomp.models import tokens as words
from tests.vq.perturbation import models
from tests.vq.perturbation.models import BLOCKS, LINEARS, pairs_of
from vq import Int4, Recipe
from vq.perturbation.equivalence import Equivalences, Range


def numbers_of(model, data, recipe):
    """Equivalences of every block."""
    for _, pairs, _, weights, finder in pairs_of(model, data, recipe):
        names = {part.layer for pair in pairs for part in pair.parts}
        originals = {name: weights.original(name) for name in names}
        yield Equivalences(model, finder._layers, originals, pairs, 0.01)


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "data", "recipe"),
    [
        (models.grouped, models.tokens, BLOCKS),
        (models.before, models.rows, LINEARS),
        (models.behind, models.rows, LINEARS),
    ],
)
def test_blocks_compute_what_they_did(build, data, recipe):
    model = build().double()
    data = [x.double() if x.is_floating_point() else x for x in data(2)]
    want = [model(x) for x in data]
    for one in numbers_of(model, data, recipe):
        for parameter in (p for group in one.groups() for p in group["params"]):
            parameter.copy_(torch.randn_like(parameter))
        with one.unrounded():
            state = model.state_dict()
            for x, y in zip(data, want, strict=True):
                torch.testing.assert_close(model(x), y, rtol=1e-12, atol=1e-12)
        assert any("parametrizations" in name for name in state)
        for x, y in zip(data, want, strict=True):
            assert torch.equal(model(x), y)


@torch.no_grad()
def test_a_llama_of_transformers_computes_what_it_did():
    pytest.importorskip("transformers")
    model, data = llama(), words(1)
    want = model(data[0]).logits
    for one in numbers_of(model, data, Recipe({"*_proj": Int4(group=8)})):
        assert len(one.numbers) == 4
        for parameter in (p for group in one.groups() for p in group["params"]):
            parameter.copy_(torch.randn_like(parameter))
        with one.unrounded():
            torch.testing.assert_close(model(data[0]).logits, want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_at_the_start_nothing_changes():
    model, data = models.before(), models.rows(1)
    want = model(data[0])
    for one in numbers_of(model, data, LINEARS):
        with one.unrounded():
            assert torch.equal(model(data[0]), want)


def test_what_several_layers_share_learns_once():
    one = next(iter(numbers_of(models.grouped(), models.tokens(1), BLOCKS)))
    parameters = [id(p) for group in one.groups() for p in group["params"]]
    assert len(parameters) == len(set(parameters)) == 4
    assert [group["lr"] for group in one.groups()] == [0.01] * 4


def test_gains_and_biases_follow_by_name():
    model = models.before()
    one = next(iter(numbers_of(model, models.rows(1), LINEARS)))
    one.scale_others()
    wanted = [f"0.{n}" for n in ("attn.qkv.bias", "norm1.weight", "norm1.bias", "norm2.weight")]
    assert {*wanted, "0.norm2.bias", "0.fc1.bias"} == one.others().keys()  # not proj and fc2
    with torch.no_grad():
        one.numbers[0].log.fill_(0.5)
    norm = model[0].norm1.parametrizations.weight.original
    torch.testing.assert_close(one.others()["0.norm1.weight"], norm.detach() / 0.5**0 / 1.6487213)


def test_they_begin_where_both_sides_are_equally_wide():
    model, data = models.before(), models.rows(1)
    one = next(iter(numbers_of(model, data, LINEARS)))
    low, high = -torch.arange(1.0, 33.0), torch.full((32,), 2.0)
    one.begin({"0.fc1": Range(low, high)}, 0.5, 1e-2)
    norm, fc1, values, products = one.numbers
    assert not norm.log.any() and not values.log.any() and not products.log.any(), "no range"
    wide = torch.maximum(-low, high)
    want = (wide / model[0].fc1.weight.detach().abs().amax(0)).sqrt()
    torch.testing.assert_close(fc1.scale(), want / want.log().mean().exp())
    torch.testing.assert_close(fc1.shift(), (low + high) / 2)
    one.begin({"0.fc1": Range(low, high)}, 0.5, 0.8)
    assert float(fc1.scale().detach().min()) == pytest.approx(0.8)
