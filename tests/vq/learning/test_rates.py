"""Which tensor learns how fast, and which one decays."""

import pytest
import torch

import vq
from tests.vq.learning.models import RECIPE, plain
from tests.vq.models import Net, batches
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.rates import Rates, learning, parameter_groups, scale_latents_


def test_groups_hold_every_tensor_once_with_its_rate():
    model = Net()
    vq.compress_(model, RECIPE)
    rates = Rates(signs=1.0, codebooks=2.0, rest=3.0, decay=4.0)
    groups = parameter_groups(model, rates)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    assert found.keys() == {id(p) for p in model.parameters()}
    layer = next(compressed_layers(model))
    assert found[id(layer.latent)] == (1.0, 0.0) and found[id(layer.codebook)] == (2.0, 0.0)
    assert found[id(model.norm.weight)] == (3.0, 0.0)
    assert found[id(model.head.weight)] == (3.0, 4.0)
    part = parameter_groups(model.fc1, rates, fixed_signs=True)
    assert [(g["lr"], len(g["params"])) for g in part] == [(2.0, 1), (3.0, 1)]


def test_what_has_no_rate_is_left_out_unless_that_is_everything():
    model = Net()
    vq.compress_(model, RECIPE)
    groups = parameter_groups(model, Rates(signs=0, codebooks=2.0, rest=3.0, kept=0))
    assert {group["lr"] for group in groups} == {2.0, 3.0}
    assert all(p.ndim < 2 for group in groups[1:] for p in group["params"])
    assert len(parameter_groups(model, Rates(0, 0, 0))) == 4


def test_scales_learn_and_what_has_no_rate_has_no_gradient():
    model = Net()
    vq.compress_(model, RECIPE)
    model.norm.bias.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    names = list(model.state_dict())
    layers = [x for x in compressed_layers(model) if x.weight.geometry.scales and x.lookup]
    with learning(model, Rates(signs=0, codebooks=0, rest=3.0, scales=1.0, kept=0)):
        scales = [layer.scales for layer in layers]
        groups = parameter_groups(model, Rates(signs=0, codebooks=0, rest=3.0, scales=1.0, kept=0))
        assert layers and {id(p) for p in scales} == {id(p) for p in groups[-1]["params"]}
        assert {(g["lr"], g["weight_decay"]) for g in groups} == {(3.0, 0.0), (1.0, 0.0)}
        assert not layers[0].latent.requires_grad and not model.head.weight.requires_grad
        assert model.norm.weight.requires_grad and not model.norm.bias.requires_grad
        with torch.no_grad():
            scales[0].mul_(2)
        doubled = layers[0].module.weight.detach()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert list(model.state_dict()) == names and layers[0].scales is None
    assert torch.equal(layers[0].module.weight, doubled)
    with learning(model, Rates(0, 0, 0)):  # a run may also only measure
        assert layers[0].latent.requires_grad


def test_alpha_only_divides_the_rate_of_the_signs():
    # Powers of two, so that rounding is the same, too.
    a, _ = plain()
    b, _ = plain()
    vq.finetune_(a, batches(), epochs=4, rates=Rates(signs=1 / 32))
    vq.finetune_(b, batches(), epochs=4, rates=Rates(signs=1 / 8, alpha=4))
    assert torch.equal(a[0].weight, b[0].weight)
    latents = [next(compressed_layers(m)).latent.detach() for m in (a, b)]
    free = latents[0].abs() < FROZEN
    assert torch.equal(4 * latents[0][free], latents[1][free])


def test_frozen_latents_stay_frozen_in_a_second_run():
    model, _ = plain()
    layers = list(compressed_layers(model))
    with torch.no_grad():
        layers[0].latent[:4] = -FROZEN
    scale_latents_(layers, alpha=0.5)
    assert (layers[0].latent[:4] == -FROZEN).all()
    assert (layers[0].latent[4:].abs() < 10).all()


def test_decay_shrinks_kept_weights_only():
    model, _ = plain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Adam does not move where there is no gradient; decay does.
    nothing = [(torch.zeros(8, 16), torch.zeros(8, 5))]
    rates = Rates(rest=0.1, decay=0.5)
    vq.finetune_(model, nothing, epochs=5, rates=rates, loss=lambda out, target: 0 * out.sum())
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"4.weight"}
    assert model[4].weight.norm() < before["4.weight"].norm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rates(signs=-1), "rate signs must be zero or positive, not -1"),
        (lambda: Rates(scales=-1), "rate scales must be zero or positive, not -1"),
        (lambda: Rates(kept=-1), "rate kept must be zero or positive, not -1"),
        (lambda: Rates(alpha=0), "alpha must be positive, not 0"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ConfigError, match="^" + message):
        make()
