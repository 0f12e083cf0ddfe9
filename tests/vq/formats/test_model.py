"""The compressed layers of a model."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import vq
from vq import SSVQ, VQ, Int8, Recipe
from vq.container import Provenance
from vq.errors import ConfigError
from vq.formats.model import compressed_layers, is_compressed, provenance_of, set_provenance


def test_each_weight_once_with_what_is_trained_in_it():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5)))
    model[4].weight = model[0].weight
    rules = {"0": SSVQ(d=4, k=8), "1": VQ(d=4, k=8), "2": Int8(), "4": SSVQ(d=4, k=8)}
    vq.compress_(model, Recipe(rules))
    layers = list(compressed_layers(model))
    assert [layer.name for layer in layers] == ["0", "1", "2"]
    assert [layer.latent is None for layer in layers] == [False, True, True]
    assert [layer.codebook is None for layer in layers] == [False, False, True]
    assert [layer.lookup is None for layer in layers] == [False, False, True]
    assert [is_compressed(module) for module in model] == [True, True, True, False, True]
    first = layers[0]
    assert first.codebook is first.originals[0] and first.latent is first.originals[1]


def test_a_scale_that_a_norm_took():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 8))
    weight = model[0].weight.detach().clone()
    vq.compress_(model, Recipe({"0": VQ(d=4, k=16, scale="norm"), "2": VQ(d=4, k=8)}))
    folded, own = compressed_layers(model)
    assert own.norm_scale() is None
    restored = folded.module.weight.detach() * folded.norm_scale()[:, None]
    assert (restored - weight).square().sum() < 0.5 * weight.square().sum()


def test_provenance_stays_with_the_model():
    model = nn.Linear(2, 2)
    assert provenance_of(model) == Provenance()
    set_provenance(model, Provenance(seed=3))
    assert provenance_of(model).seed == 3


class Adapted(nn.Module):
    def forward(self, weight):
        return weight + 1


ON_TOP = {
    "Adapted": lambda m: parametrize.register_parametrization(m[0], "weight", Adapted()),
    "WeightNorm": lambda m: parametrizations.weight_norm(m[0]),
    "SpectralNorm": lambda m: parametrizations.spectral_norm(m[0]),
}


@pytest.mark.parametrize("kind", ON_TOP)
def test_what_is_put_on_top_of_a_compressed_weight_is_not_lost(kind, tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    vq.compress_(model, Recipe({"*": SSVQ(d=4, k=4)}), progress=False)
    ON_TOP[kind](model)
    data = [(torch.ones(2, 8), torch.zeros(2).long())]
    for door in (
        lambda: vq.save(model, tmp_path / "none"),
        lambda: vq.finetune_(model, data, epochs=1, progress=False),
    ):
        with pytest.raises(
            ConfigError,
            match=rf"^model to store has 1 problem:\n- layer '0': nothing .* {kind} does",
        ):
            door()
    assert not (tmp_path / "none").exists()
