"""Choosing codewords again: it moves what clearly fits better elsewhere, and nothing else."""

import pytest
import torch
from torch import nn

import vq
from tests.vq.learning.models import plain
from tests.vq.models import batches
from vq import SSVQ, VQ, Recipe
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.rates import Rates
from vq.learning.rules.refinement import Refinement, Refiner


def refined(model, **settings):
    settings = {"epochs": 8, "rates": Rates(signs=0.1, codebooks=0.03), **settings}
    before = next(compressed_layers(model)).weight.indices.clone()
    result = vq.finetune_(model, batches(), **settings)
    layer = next(compressed_layers(model))
    return result, (layer.weight.indices != before).sum()


@pytest.mark.parametrize("method", [SSVQ(d=8, k=8), SSVQ(d=5, k=8, scale="output"), VQ(d=4, k=32)])
def test_refinement_reassigns_and_what_it_makes_can_be_stored(method, tmp_path):
    schedule = Refinement(interval_steps=4)
    result, changed = refined(plain(method=method)[0], refinement=schedule)
    assert 0 < changed <= result.reassigned
    assert refined(plain(method=method)[0])[1] == 0
    model, _ = plain(method=method)
    assert refined(model, refinement=schedule)[0] == result
    vq.save(model, tmp_path / "m.vq.safetensors")
    loaded = vq.load(tmp_path / "m.vq.safetensors", into=plain()[1])
    assert torch.equal(loaded[0].weight, model[0].weight)


@pytest.mark.parametrize("method", [SSVQ(d=8, k=8), SSVQ(d=5, k=8, scale="output"), VQ(d=4, k=32)])
def test_refinement_moves_nothing_before_training(method):
    model, _ = plain(method=method)
    schedule = Refinement(interval_steps=1, margin=0)
    refiner = Refiner(compressed_layers(model), 100, schedule, Rates())
    refiner.after_step(1)
    assert refiner.reassigned == 0


def test_refinement_takes_the_codeword_that_the_latents_moved_to():
    model, _ = plain()
    layer = next(compressed_layers(model))
    codebook = layer.codebook.detach()
    schedule = Refinement(interval_steps=10, candidates=7)
    refiner = Refiner([layer], 100, schedule, Rates(alpha=2.0))
    target = int((layer.weight.indices[3] + 3) % 8)
    frozen = int((layer.weight.indices[4] + 5) % 8)
    with torch.no_grad():
        layer.latent[3] = 2 * codebook[target] * torch.tensor([1, -1]).repeat(4)
        layer.latent[0:3] = 2 * codebook[layer.weight.indices[0:3].long()]
        layer.latent[4:] = 2 * codebook[layer.weight.indices[4:].long()]
        layer.latent[4] = -2 * codebook[frozen]
        layer.latent[4, 0] = FROZEN  # tells nothing about a magnitude
        large = int(codebook.norm(dim=1).argmax())
        layer.weight.indices[5] = large
        layer.latent[5] = FROZEN  # nothing speaks for another codeword
    refiner.after_step(9)  # not due
    refiner.after_step(80)  # too late
    assert refiner.reassigned == 0
    refiner.after_step(10)
    assert refiner.telemetry() == {"reassigned": 2}
    assert layer.weight.indices[3] == target
    assert layer.weight.indices[4] == frozen
    assert layer.weight.indices[5] == large


def test_refinement_fits_better_on_average():
    def last(seed, refinement):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
        vq.compress_(model, Recipe({"0": VQ(d=4, k=8), "2": None}), seed=seed)
        return vq.finetune_(model, batches(), epochs=15, refinement=refinement).losses[-1]

    gains = [last(s, None) - last(s, Refinement(interval_steps=10)) for s in range(5)]
    assert sum(gains) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Refinement(interval_steps=0), "refinement interval_steps must be positive"),
        (lambda: Refinement(margin=1), r"refinement margin must be in \[0, 1\), not 1"),
        (lambda: Refinement(until=0), r"refinement until must be in \(0, 1\], not 0"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ConfigError, match="^" + message):
        make()
