"""Fine-tuning: it learns, it keeps what must stay, it repeats, and others can do it by hand."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Int8, Recipe
from vq.errors import ConfigError
from vq.finetune import Rates
from vq.freezing import Freezing, SignFreezer
from vq.model import compressed_layers

RECIPE = Recipe({"fc1": SSVQ(d=8, k=16), "fc2": SSVQ(d=4, k=8, scale="output")})


def trained(**settings):
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE)
    start = copy.deepcopy(model)
    result = vq.finetune_(model, batches(), epochs=8, **settings)
    return start, model, result


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


def test_codewords_that_would_turn_negative_stop_at_zero():
    _, model, _ = trained(rates=Rates(codebooks=0.3))
    codebooks = [layer.codebook for layer in compressed_layers(model)]
    assert all(codebook.min() >= 0 for codebook in codebooks)
    assert any((codebook == 0).any() for codebook in codebooks)


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


def test_any_training_loop_works():
    model = Net()
    vq.compress_(model, RECIPE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    freezer = SignFreezer(list(compressed_layers(model)), 40, Freezing())
    losses = []
    for _ in range(5):
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            freezer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_own_loss_is_used():
    model = nn.Sequential(nn.Linear(16, 8))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=4)}))
    data = [(torch.randn(64, 16), torch.zeros(64, 8))]
    result = vq.finetune_(model, data, epochs=60, loss=nn.functional.mse_loss)
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_model_without_compressed_layers_is_refused():
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none"):
        vq.finetune_(Net(), batches())


@pytest.mark.parametrize(("loader", "epochs"), [([], 3), (batches(1), 0)])
def test_training_without_a_step_is_refused(loader, epochs):
    model = Net()
    vq.compress_(model, RECIPE)
    with pytest.raises(ConfigError, match=r"^training must have at least one step"):
        vq.finetune_(model, loader, epochs=epochs)
