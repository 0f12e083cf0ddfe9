"""Gradients of codebooks and signs, against formulas; signs that freeze, codewords that clamp."""

import pytest
import torch
from torch import nn

import vq
from vq import SSVQ, VQ, Int4, Recipe
from vq.formats.integers import codebook_step
from vq.formats.model import CompressedLayer, compressed_layers
from vq.formats.weights import FROZEN


def compressed(method, outputs=16, inputs=32) -> CompressedLayer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=False))
    vq.compress_(model, Recipe({"0": method}))
    return next(compressed_layers(model))


def unit_grid(layer: CompressedLayer, grad: torch.Tensor) -> torch.Tensor:
    """Gradient of the weight as sub-vectors [N, d], in units of the latents."""
    unit = layer.weight.unit
    scaled = grad * (unit if len(unit) == 1 else unit[:, None])
    d = layer.weight.geometry.d
    if layer.weight.geometry.axis == "in":
        return scaled.reshape(-1, d)
    return scaled.reshape(scaled.shape[0] // d, d, -1).swapaxes(1, 2).reshape(-1, d)


@pytest.mark.parametrize("scale", ["layer", "output"])
@pytest.mark.parametrize("axis", ["in", "out"])
def test_ssvq_gradients_follow_the_paper(axis, scale):
    layer = compressed(SSVQ(d=4, k=8, axis=axis, scale=scale))
    codebook, latent = layer.originals
    grad = torch.randn(16, 32)
    layer.module.weight.backward(grad)
    g = unit_grid(layer, grad)
    indices = layer.weight.indices.long()
    sign = torch.where(latent >= 0, 1.0, -1.0).detach()
    expected = torch.zeros_like(codebook).index_add_(0, indices, g * sign)
    torch.testing.assert_close(codebook.grad, expected, rtol=1e-4, atol=1e-6)
    magnitude = (layer.weight.integers(codebook) * codebook_step(codebook)).detach()[indices]
    # The rounded magnitude, times the gradient of the weight; per-output scales are one step away.
    ratio = latent.grad / (g * magnitude)
    ratio = ratio[magnitude != 0]
    if scale == "layer":
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-4, atol=1e-4)
    else:
        assert (ratio > 0).all()


def test_vq_codebook_gradient_sums_over_sub_vectors():
    layer = compressed(VQ(d=4, k=8))
    (codebook,) = layer.originals
    grad = torch.randn(16, 32)
    layer.module.weight.backward(grad)
    indices = layer.weight.indices.long()
    expected = torch.zeros_like(codebook).index_add_(0, indices, unit_grid(layer, grad))
    torch.testing.assert_close(codebook.grad, expected, rtol=1e-4, atol=1e-6)


def test_sign_of_zero_is_plus():
    layer = compressed(SSVQ(d=4, k=8))
    with torch.no_grad():
        layer.latent.zero_()
    assert (layer.module.weight >= 0).all()
    assert not layer.to_layer().stream[-64:].any()  # no stored sign is negative


def test_negative_codewords_count_as_zero():
    layer = compressed(SSVQ(d=4, k=8))
    with torch.no_grad():
        layer.codebook[0] = -1.0
    assert layer.to_layer().codebook.min() == 0
    assert (layer.module.weight.abs().reshape(-1, 4)[layer.weight.indices == 0] == 0).all()


def test_clamping_keeps_magnitudes_and_leaves_signed_codewords():
    for method, least in ((SSVQ(d=4, k=8), 0.0), (VQ(d=4, k=8), -1.0)):
        layer = compressed(method)
        with torch.no_grad():
            layer.codebook[0] = -1.0
        layer.clamp_()
        assert layer.codebook[0].min() == least


def test_frozen_signs_get_no_gradient_and_never_move():
    layer = compressed(SSVQ(d=4, k=8))
    with torch.no_grad():
        layer.latent[:5] = FROZEN
        layer.latent[5:9] = -FROZEN
    optimizer = torch.optim.Adam([layer.latent], lr=1e6)
    before = layer.latent.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        layer.module.weight.sum().backward()
        assert not layer.latent.grad[:9].any()
        optimizer.step()
    assert torch.equal(layer.latent.detach()[:9], before[:9])
    assert not torch.equal(layer.latent.detach()[9:], before[9:])


def test_codebook_integers_span_the_range():
    for method in (SSVQ(d=4, k=8), VQ(d=4, k=8)):
        stored = compressed(method).to_layer()
        assert abs(stored.codebook).max() == 127


@pytest.mark.parametrize(
    "kind", [SSVQ(d=4, k=8), SSVQ(d=4, k=8, parity=True), VQ(d=4, k=8), Int4()]
)
def test_transforms_of_functions_see_the_gradients_of_training(kind):
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))
    vq.compress_(model, Recipe({"*": kind}), progress=False)
    x = torch.randn(3, 8)
    held = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    loss(dict(model.named_parameters()), x).backward()
    found = torch.func.grad(loss)(held, x)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(held, x[:, None])
    for name, p in model.named_parameters():
        assert torch.equal(found[name], p.grad)
        torch.testing.assert_close(each[name].sum(0), p.grad)
    other = {name: p + 1 for name, p in held.items()}
    both = {name: torch.stack([held[name], other[name]]) for name in held}
    two = torch.func.vmap(loss, (0, None))(both, x)
    torch.testing.assert_close(two, torch.stack([loss(held, x), loss(other, x)]))


@pytest.mark.parametrize("scale", ["layer", "output", "norm"])
@pytest.mark.parametrize("method", [SSVQ, VQ])
def test_scales_learn_for_a_while_and_stay_what_they_became(method, scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16, bias=False), nn.LayerNorm(16))
    vq.compress_(model, Recipe({"0": method(d=4, k=8, scale=scale)}))
    layer = next(compressed_layers(model))
    before = layer.module.weight.detach()
    layer.weight.free_scales()
    if scale == "norm":
        assert layer.scales is None
        return
    assert torch.equal(layer.module.weight, before) and torch.equal(
        layer.scales, torch.ones(16 if scale == "output" else 1)
    )
    grad = torch.randn(16, 32)
    layer.module.weight.backward(grad)
    products = before * grad
    wanted = products.sum(1) if scale == "output" else products.sum().reshape(1)
    torch.testing.assert_close(layer.scales.grad, wanted, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        layer.scales.copy_(torch.linspace(-1, 2, len(layer.scales)) + 0.1)
    layer.clamp_()
    assert (layer.scales > 0).all()
    learned, stored = layer.module.weight.detach(), layer.to_layer().scale
    layer.weight.fix_scales()
    assert layer.scales is None and torch.equal(layer.module.weight, learned)
    assert (layer.to_layer().scale == stored).all() and "gain" not in str(model.state_dict().keys())
