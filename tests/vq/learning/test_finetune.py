"""Fine-tuning: it learns, it keeps what must stay, and it repeats."""

import pytest
import torch

import vq
from tests.vq.learning.models import RECIPE, plain, trained
from tests.vq.models import Net, batches
from vq import VQ, Int8, Recipe
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.objective import Distillation
from vq.learning.rates import Rates
from vq.learning.rules.signs import Freezing


def test_loss_falls_and_every_kind_of_tensor_moves():
    start, model, result = trained()
    assert result.losses[-1] < 0.9 * result.losses[0]
    before = dict(start.named_parameters())
    for name, tensor in model.named_parameters():
        assert not torch.equal(tensor, before[name]), name
    for a, b in zip(compressed_layers(start), compressed_layers(model), strict=True):
        assert torch.equal(a.weight.indices, b.weight.indices)
        assert b.codebook.min() >= 0
    assert result.signs[-1].changed > 0.005


def test_fixed_signs_stay_while_the_rest_learns():
    start, model, result = trained(fixed_signs=True)
    assert result.losses[-1] < result.losses[0]
    assert result.signs[-1].changed == 0
    for a, b in zip(compressed_layers(start), compressed_layers(model), strict=True):
        assert torch.equal(a.latent, b.latent)
        assert not torch.equal(a.codebook, b.codebook)


def test_learned_signs_fit_better_than_fixed_ones():
    assert trained()[2].losses[-1] < trained(fixed_signs=True)[2].losses[-1]


def test_equal_runs_are_equal_to_the_bit():
    a, b = trained()[1].state_dict(), trained()[1].state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_freezing_shows_in_the_record():
    schedule = Freezing(interval_steps=2, momentum=0.3, threshold_start=0.02, threshold_end=0.001)
    _, _, result = trained(freezing=schedule, rates=Rates(signs=0.3))
    assert 0 < result.signs[-1].frozen < 1
    assert result.to_json()["signs"][-1]["frozen"] == result.signs[-1].frozen


@pytest.mark.parametrize("method", [VQ(d=4, k=32), Int8()])
def test_other_methods_train_too(method):
    model = Net()
    vq.compress_(model, Recipe({"fc*": method}))
    result = vq.finetune_(model, batches(), epochs=6)
    assert result.losses[-1] < result.losses[0]
    assert result.signs == []


def test_model_without_compressed_layers_is_refused():
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none"):
        vq.finetune_(Net(), batches())


@pytest.mark.parametrize(("loader", "epochs"), [([], 3), (batches(1), 0)])
def test_training_without_a_step_is_refused(loader, epochs):
    model = Net()
    vq.compress_(model, RECIPE)
    with pytest.raises(ConfigError, match=r"^training must have at least one step"):
        vq.finetune_(model, loader, epochs=epochs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"amp": "fp8"}, r"training has 1 problem:\n- amp must be None or 'bf16', not 'fp8'"),
        (
            {"accumulate": 0, "clip_norm": -1.0},
            "training has 2 problems:\n- accumulate must be pos",
        ),
        ({"checkpoint_steps": 0}, r"training has 1 problem:\n- checkpoint_steps must be positive"),
        ({"seed": -1}, r"training has 1 problem:\n- seed must not be negative, not -1"),
        ({"distillation": Distillation()}, "distillation must have a teacher, not none"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match="^" + message):
        vq.finetune_(plain()[0], batches(), **settings)


def test_the_model_cannot_teach_itself():
    model, _ = plain()
    with pytest.raises(
        ConfigError, match=r"^teacher must be another model, not the one that learns"
    ):
        vq.finetune_(model, batches(), teacher=model)
