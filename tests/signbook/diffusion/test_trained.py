"""Models that are trained once: kept by a hash of their sources and seed."""

import sys

import pytest
import torch

from signbook.data import Images, load_pictures
from signbook.diffusion import digits_dit, digits_judge, likeness, sample, trained
from signbook.diffusion.trained import _PLANS
from signbook.naming import resolve_model
from vq.errors import ConfigError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Names and steps of trainings that take no time, on images of one grey."""
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipe_of_a_model.py").write_text("steps = 1\n")
    import recipe_of_a_model

    def grey(name: str, split: str) -> Images:
        size = 8 if name == "digits" else 28
        return Images(torch.zeros(5, 1, size, size, dtype=torch.uint8), torch.zeros(5).long())

    monkeypatch.setattr("signbook.data.pictures.load_pictures", grey)
    found: list[tuple[str, int]] = []
    for name, plan in list(_PLANS.items()):

        def train(model, images, *, steps, plan=plan, name=name):
            found.append((name, steps))
            plan.train(model, images, steps=steps, batch=2)

        sources = (*plan.sources, recipe_of_a_model)
        monkeypatch.setitem(_PLANS, name, plan._replace(train=train, steps=2, sources=sources))
    yield found
    del sys.modules["recipe_of_a_model"]


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_models_are_trained_once_for_every_seed(runs):
    state = torch.get_rng_state()
    first = trained("digits-judge")
    assert torch.get_rng_state().equal(state), "who asks for a model keeps his random numbers"
    assert weights(digits_judge()).equal(weights(first)) and not first.training
    assert runs == [("digits-judge", 2)]
    assert not weights(trained("digits-judge", 1)).equal(weights(first)) and len(runs) == 2


def test_other_sources_train_anew(runs, tmp_path):
    first = trained("digits-judge")
    (tmp_path / "recipe_of_a_model.py").write_text("steps = 2\n")
    again = trained("digits-judge")
    assert len(runs) == 2 and weights(again).equal(weights(first))


def test_other_lengths_train_anew(runs, monkeypatch):
    trained("digits-judge")
    monkeypatch.setitem(_PLANS, "digits-judge", _PLANS["digits-judge"]._replace(steps=1))
    trained("digits-judge")
    assert [steps for _, steps in runs] == [2, 1]


@pytest.mark.parametrize("name", _PLANS)
def test_commands_can_name_them(name, runs):
    model = resolve_model(f"py:signbook.diffusion:{name.replace('-', '_')}?seed=4")
    assert weights(model).equal(weights(trained(name, 4))) and runs == [(name, 2)]


def test_their_hash_holds_the_files_that_say_what_they_become():
    for name, plan in _PLANS.items():
        files = {source.__name__.rsplit(".", 1)[-1] for source in plan.sources}
        own = {
            "dit": {"dit", "preconditioned", "ddpm"},
            "unet": {"unet", "preconditioned", "ddpm"},
            "judge": {"judge"},
        }
        assert files == {"training", "pictures"} | own[name.split("-")[1]]


def test_models_that_are_not_there():
    with pytest.raises(
        ConfigError, match=r"^trained model must be one of digits-dit, .*, not 'dit'$"
    ):
        trained("dit")
    with pytest.raises(ConfigError, match=r"^seed must be 0 or more, not -1$"):
        trained("digits-dit", -1)


@pytest.mark.slow
def test_the_transformer_of_digits_draws_digits():
    """Beside it, what the training images get: other images of the same kind."""
    model, judge = digits_dit(), digits_judge()
    real, others = load_pictures("digits", "test"), load_pictures("digits", "train")
    torch.manual_seed(1)
    labels, noise = torch.arange(500) % 10, torch.randn(500, *model.shape)
    best = likeness(others.x[:500].float() / 255 - 0.5, real, judge, others.y[:500])
    found = likeness(sample(model, noise, labels), real, judge, labels)
    assert found["frechet"] < 3 * best["frechet"], (found, best)
    assert min(found["precision"], found["recall"]) > 0.65, (found, best)
    guided = likeness(sample(model, noise, labels, guidance=1.5), real, judge, labels)
    assert found["agreement"] > 0.8 and guided["agreement"] > 0.93, (found, guided)
