"""A model is the unquantised one for a while."""

import torch

import vq
from tests.rescomp.models import chain
from vq.calibration.weights import Weights
from vq.recipe.selection import select


def test_quantised_weights_are_in_place_but_where_the_original_is_asked_for():
    model = chain()
    (layer,) = select(model, vq.Recipe({"0": vq.Int4()})).layers
    original, other = model[0].weight.detach().clone(), torch.ones(16, 12)
    weights = Weights([layer])
    weights.put("0", other)
    assert torch.equal(model[0].weight, other)
    with weights.unquantised():
        assert torch.equal(model[0].weight, original)
    assert torch.equal(model[0].weight, other) and torch.equal(weights.original("0"), original)


def test_other_parameters_may_differ_too():
    model = chain()
    bias, original = model[0].bias, model[0].bias.detach().clone()
    weights = Weights([])
    weights.split("0.bias", bias)
    with torch.no_grad():
        bias.add_(1)
    with weights.unquantised():
        assert torch.equal(bias, original)
    assert torch.equal(bias, original + 1) and torch.equal(weights.current("0.bias"), original + 1)
