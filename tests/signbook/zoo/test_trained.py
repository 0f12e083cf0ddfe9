"""Models that are trained once for each version of their sources and each seed."""

import importlib
import sys

import pytest
import torch
from torch import nn

from signbook.zoo.trained import trained
from vq.errors import ConfigError, TrainingError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A module, whose text tests change."""
    (tmp_path / "a_recipe_of_mine.py").write_text("STEPS = 1")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("a_recipe_of_mine")
    del sys.modules["a_recipe_of_mine"]


def build():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def train(model, seed):
    """What a training does: it draws, and it changes weights and buffers."""
    model(torch.randn(8, 3) + seed)
    with torch.no_grad():
        model[0].weight += 1


def never(model, seed):
    raise AssertionError("trained again")


def tensors(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(one, other):
    return all(map(torch.equal, tensors(one), tensors(other)))


def test_trained_once_and_the_same_when_found(source):
    made = trained("a", build, train, sources=[source])
    found = trained("a", build, never, sources=[source, source])
    assert same(made, found) and not made.training and not found.training
    assert made[1].num_batches_tracked == 1
    made[0].weight.data.zero_()  # the caller's own, as with any model
    assert same(trained("a", build, never, sources=[source]), found)


def test_without_a_cache_it_comes_out_the_same(source, tmp_path, monkeypatch):
    made = trained("a", build, train, sources=[source])
    torch.randn(5)
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "another"))
    assert same(trained("a", build, train, sources=[source]), made)


@pytest.mark.parametrize("training", [train, never])
def test_random_state_stays(source, training):
    if training is never:
        trained("a", build, train, sources=[source])
    before = torch.get_rng_state()
    trained("a", build, training, sources=[source])
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_source_or_name_is_another_model(source, cache):
    first = trained("a", build, train, sources=[source])
    assert not same(trained("a", build, train, sources=[source], seed=1), first)
    trained("b", build, train, sources=[source])
    trained("a", build, train, sources=[source, nn.Linear])
    path = source.__file__
    with open(path, "a") as file:
        file.write("\n")
    trained("a", build, train, sources=[source])
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 5


def test_a_training_that_fails_leaves_nothing(source, cache):
    def diverges(model, seed):
        raise TrainingError("loss must be finite")

    with pytest.raises(TrainingError, match="loss must be finite"):
        trained("a", build, diverges, sources=[source])
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]
    trained("a", build, train, sources=[source])


def test_negative_seed(source):
    with pytest.raises(ConfigError, match="seed must be 0 or more, not -1"):
        trained("a", build, never, sources=[source], seed=-1)
