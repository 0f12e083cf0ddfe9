"""Sensitivity leaves the model alone; allocation is optimal within its budget."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vq
from tests.vq.models import Net, batches, unchanged
from vq import SSVQ, VQ, Int2, Int4, Int8, Recipe
from vq.calibration.norms import reestimate_norms_
from vq.errors import ConfigError, RecipeError
from vq.search import Choice, allocate, sensitivity

CANDIDATES = [SSVQ(d=8, k=16), SSVQ(d=4, k=16), Int4(group=32), Int2(zeros=True), Int8()]


@torch.no_grad()
def loss(model):
    model.eval()
    values = [torch.nn.functional.cross_entropy(model(x), y) for x, y in batches(4)]
    return float(torch.stack(values).mean())


def test_measures_each_layer_alone_and_leaves_the_model_as_it_was():
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sensitivity(model, {"fc*": CANDIDATES, "head": [Int8(), None]}, loss)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(found) == ["fc1", "fc2", "head"]
    assert [c.method for c in found["fc1"]] == CANDIDATES
    assert [c.method for c in found["head"]] == [Int8(), None]
    assert found["head"][1].loss_increase == 0 and found["head"][1].bytes == 4 * 32 * 5
    alone = Net()
    alone.load_state_dict(before)
    result = vq.compress_(alone, Recipe({"fc1": SSVQ(d=8, k=16)}))
    choice = found["fc1"][0]
    assert choice.loss_increase == pytest.approx(loss(alone) - loss(model), abs=1e-6)
    assert choice.geometry == result.layers[0].geometry
    assert 8 * choice.bytes / choice.weights == result.bits_per_weight


def test_batch_norms_are_measured_again_before_every_score():
    model, data = Net(), batches(seed=1)
    before = copy.deepcopy(model.state_dict())
    rule = SSVQ(d=8, k=16)
    found = sensitivity(model, {"fc1": [rule]}, loss, calibration=iter(data))
    unchanged(model, before)
    alone = copy.deepcopy(model)
    vq.compress_(alone, Recipe({"fc1": rule}), calibration=data)
    reestimate_norms_(model, data)
    assert found["fc1"][0].loss_increase == pytest.approx(loss(alone) - loss(model), abs=1e-6)


def test_batch_norms_without_data_are_spoken_of_unless_they_are_to_stay():
    with pytest.warns(UserWarning, match=r"^batch norms must be measured again once weights"):
        sensitivity(Net(), {"fc1": CANDIDATES[:1]}, loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = sensitivity(net := Net(), {"fc1": CANDIDATES[:1]}, loss, norms=False)
        data = batches(seed=1)
        stays = sensitivity(net, {"fc1": CANDIDATES[:1]}, loss, norms=False, calibration=data)
    assert plain == stays


def test_methods_that_do_not_fit_are_left_out():
    found = sensitivity(Net(), {"*": [VQ(d=4, k=64), Int8()]}, loss)
    assert [c.method for c in found["head"]] == [Int8()]  # 40 sub-vectors only
    assert [c.method for c in found["fc1"]] == [VQ(d=4, k=64), Int8()]


def test_model_is_restored_when_the_score_fails():
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = itertools.count()

    def fails(_):
        if next(calls) == 2:
            raise RuntimeError
        return 1.0

    with pytest.raises(RuntimeError):
        sensitivity(model, {"fc*": CANDIDATES}, fails)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_score_must_be_finite():
    with pytest.raises(ConfigError, match=r"^score of the original model must be finite, not nan"):
        sensitivity(Net(), {"fc1": CANDIDATES}, lambda model: float("nan"))


@st.composite
def problems(draw):
    layers = draw(st.integers(1, 5))
    options = st.tuples(st.integers(1, 60), st.floats(0, 10, allow_nan=False))
    return {
        f"l{i}": [
            Choice(VQ(d=4, k=16 + j), None, increase, 100, cost)
            for j, (cost, increase) in enumerate(draw(st.lists(options, min_size=1, max_size=4)))
        ]
        for i in range(layers)
    }


@given(problems(), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_allocation_is_as_good_as_trying_everything(choices, share):
    least = sum(min(c.bytes for c in options) for options in choices.values())
    most = sum(max(c.bytes for c in options) for options in choices.values())
    budget = least + int(share * (most - least))
    recipe = allocate(choices, budget_bytes=budget)
    picked = [
        next(c for c in options if c.method == recipe.rules[name])
        for name, options in choices.items()
    ]
    assert sum(c.bytes for c in picked) <= budget
    best = min(
        sum(c.loss_increase for c in combination)
        for combination in itertools.product(*choices.values())
        if sum(c.bytes for c in combination) <= budget
    )
    assert sum(c.loss_increase for c in picked) == pytest.approx(best, abs=1e-9)


def test_a_budget_that_is_spent_to_the_last_byte_is_spent():
    """13 and 4 bytes above the cheapest are 17 together, though neither is a whole 8192nd of 17."""
    choices = {
        name: [Choice(VQ(k=16), None, 1.0, 100, 1), Choice(VQ(k=17), None, 0.0, 100, most)]
        for name, most in (("a", 14), ("b", 5))
    }
    recipe = allocate(choices, budget_bytes=19)
    assert [method.k for method in recipe.rules.values()] == [17, 17]
    recipe = allocate(choices, budget_bytes=18)
    assert [method.k for method in recipe.rules.values()] == [17, 16]


def two_layers():
    return {
        "a": [Choice(SSVQ(d=8, k=16), None, 1.0, 800, 150), Choice(Int8(), None, 0.0, 800, 800)],
        "b": [Choice(SSVQ(d=8, k=16), None, 0.1, 800, 150), Choice(Int8(), None, 0.0, 800, 800)],
    }


def test_bits_go_where_they_help():
    recipe = allocate(two_layers(), budget_bits_per_weight=5.0)
    assert recipe == Recipe({"a": Int8(), "b": SSVQ(d=8, k=16)})


def test_any_cost_can_be_the_budget():
    def cycles(choice):
        return 10.0 if choice.method == Int8() else 30.0

    cheap = allocate(two_layers(), budget_cost=20.0, cost=cycles)
    assert cheap == Recipe({"a": Int8(), "b": Int8()})


def test_too_small_a_budget_names_the_least_possible():
    with pytest.raises(RecipeError, match=r"^budget must be at least 300, the cost .* not 299$"):
        allocate(two_layers(), budget_bytes=299)
    with pytest.raises(RecipeError, match=r"^budget must be at least 1.5, the cost .* not 1.4$"):
        allocate(two_layers(), budget_bits_per_weight=1.4)


@pytest.mark.parametrize(
    "budget", [{}, {"budget_bytes": 1, "budget_cost": 1}, {"budget_cost": 1}, {"cost": len}]
)
def test_exactly_one_budget(budget):
    with pytest.raises(ConfigError, match=r"^budget must be one of budget_bytes"):
        allocate(two_layers(), **budget)


def test_found_recipe_compresses_within_its_budget():
    model = Net()
    found = sensitivity(model, {"fc*": CANDIDATES}, loss)
    recipe = allocate(found, budget_bits_per_weight=4.0)
    assert vq.compress_(model, recipe).bits_per_weight <= 4.0
    assert np.isfinite(loss(model))


def test_what_one_layer_takes_is_gone_for_the_others():
    choices = {
        name: [
            Choice(SSVQ(d=8, k=16), None, increase, 800, 150),
            Choice(Int8(), None, 0.0, 800, 800),
        ]
        for name, increase in (("a", 1.0), ("b", 1.1), ("c", 1.2))
    }
    recipe = allocate(choices, budget_bytes=150 + 150 + 800)
    assert [method.name for method in recipe.rules.values()] == ["ssvq", "ssvq", "int8"]
