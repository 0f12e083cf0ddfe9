"""Every kind of layer, every direction of sub-vectors, ragged edges, ties: trained and stored."""

import copy

import pytest
import torch
from torch import nn

import vq
from vq import SSVQ, VQ, Int2, Int4, Int8, Recipe
from vq.container import open_container
from vq.errors import RecipeError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.layers import (
    candidates,
    join_grid,
    matrix_of,
    op_of,
    plain_weight,
    shape_of,
    weight_id,
    weight_of,
)
from vq.learning.rules.signs import SignFreezer


class Conv1D(nn.Module):
    """Twin of the transformers module of that name: the weight is [inputs, outputs]."""

    __module__ = "transformers.pytorch_utils"

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x):
        return x @ self.weight


LAYERS = {
    "linear": lambda: nn.Linear(50, 37),
    "linear_t": lambda: Conv1D(37, 50),
    "embedding": lambda: nn.Embedding(41, 30),
    "conv1d": lambda: nn.Conv1d(12, 20, 5),
    "conv2d": lambda: nn.Conv2d(12, 20, 3),
    "grouped": lambda: nn.Conv2d(32, 24, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(50, 50, 3, groups=50),
    "pointwise": lambda: nn.Conv2d(30, 20, 1),
}
METHODS = {
    "ssvq-auto": SSVQ(d=8, k=16),
    "ssvq-in": SSVQ(d=8, k=16, axis="in"),
    "ssvq-out": SSVQ(d=8, k=16, axis="out", scale="output"),
    "ssvq-kernel": SSVQ(d=9, k=16, axis="kernel"),
    "ssvq-parity": SSVQ(d=4, k=16, parity=True, axis="in"),
    "vq": VQ(d=4, k=16, scale="output"),
    "int8": Int8(),
    "int4": Int4(group=32),
    "int2": Int2(group=24, zeros=True),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_trains_and_comes_back_bit_for_bit(tmp_path, layer, method):
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": LAYERS[layer]()})
    fresh = copy.deepcopy(model)
    original = model["a"].weight.detach().clone()
    result = vq.compress_(model, Recipe({"a": method}))
    error = (model["a"].weight - original).square().sum() / original.square().sum()
    assert error.item() == pytest.approx(result.layers[0].relative_error, rel=1e-3, abs=1e-9)
    assert error.item() < 0.75
    target = torch.randn_like(original)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = (model["a"].weight - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    vq.save(model, tmp_path / "x")
    loaded = vq.load(tmp_path / "x", into=fresh)
    assert torch.equal(loaded["a"].weight, model["a"].weight)
    with open_container(tmp_path / "x") as container:
        geometry = container.layers[0].geometry
        assert geometry.weights == original.numel()
        assert geometry == next(compressed_layers(model)).weight.geometry


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("axis", ["in", "out", "kernel"])
def test_matrix_layout_agrees_with_the_container(layer, axis):
    from vq.container import order

    module = LAYERS[layer]()
    op = op_of(module)
    weight = module.weight.detach()
    matrix = matrix_of(weight, op, axis)
    outputs_first = weight.T if op == "linear_t" else weight
    assert torch.equal(matrix, torch.from_numpy(order.to_matrix(outputs_first.numpy(), axis)))
    assert torch.equal(weight_of(matrix, shape_of(weight, op), op, axis), weight)
    grid = order.split(matrix.numpy(), 8, axis)
    assert torch.equal(join_grid(torch.from_numpy(grid), tuple(matrix.shape), axis), matrix)


def test_automatic_direction_is_along_outputs_only_where_channels_are_few():
    shapes = {"linear": (64, 4), "conv2d": (64, 4, 3, 3), "embedding": (9, 4)}
    found = {op: SSVQ(d=8).axis_for(op, shape) for op, shape in shapes.items()}
    assert found == {"linear": "in", "conv2d": "out", "embedding": "in"}
    assert SSVQ(d=8).axis_for("conv2d", (64, 8, 3, 3)) == "in"


def test_filling_of_ragged_sub_vectors_does_not_move_the_codebook():
    """Nine weights in sub-vectors of eight: seven of eight lanes of every second one are filling.

    All weights are equal, so every codeword must be that value: filling counted as zeros would
    pull some towards zero.
    """
    model = nn.Sequential(nn.Linear(9, 64, bias=False))
    nn.init.constant_(model[0].weight, 0.5)
    result = vq.compress_(model, Recipe({"0": SSVQ(d=8, k=2)}))
    assert result.layers[0].relative_error < 1e-12
    torch.testing.assert_close(model[0].weight.detach(), torch.full((64, 9), 0.5))


def test_parity_holds_in_training_and_turns_the_least_certain_sign():
    model = nn.Sequential(nn.Linear(32, 16, bias=False))
    original = model[0].weight.detach().clone()
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=16, parity=True)}))
    layer = next(compressed_layers(model))
    negative = torch.signbit(layer.weight.in_effect(layer.latent.detach()))
    assert (negative.sum(dim=1) % 2 == 0).all()
    latent = original.reshape(-1, 8)
    turned = negative != (latent < 0)
    assert (turned.sum(dim=1) == (latent < 0).sum(dim=1) % 2).all()
    rows = turned.any(dim=1)
    assert torch.equal(turned[rows].int().argmax(1), latent[rows].abs().argmin(1))
    assert layer.to_layer().geometry.sign_bits == 7


@pytest.mark.parametrize("method", [SSVQ(d=8, k=4), SSVQ(d=8, k=4, parity=True), VQ(d=8, k=4)])
def test_gradients_are_those_of_the_plain_formula(method):
    """Against autograd of an ordinary look-up; the sign function's gradient is the identity."""
    model = nn.Sequential(nn.Linear(32, 16, bias=False))
    vq.compress_(model, Recipe({"0": method}))
    layer = next(compressed_layers(model))
    if layer.latent is not None:
        with torch.no_grad():
            layer.latent[3] = FROZEN
    target = torch.randn_like(model[0].weight)
    (model[0].weight * target).sum().backward()

    book, weight = layer.codebook.detach().clone().requires_grad_(), layer.weight
    integers = weight.integers(book.detach())
    step = weight.scale(book.detach()) / weight.unit
    rows = (book + (integers * step - book).detach())[weight.indices] * weight.unit
    grad = target.reshape(-1, 8)
    if layer.latent is None:
        (rows * grad).sum().backward()
    else:
        sign = torch.where(torch.signbit(weight.in_effect(layer.latent.detach())), -1.0, 1.0)
        (rows * sign * grad).sum().backward()
        expected = grad * rows.detach()
        expected[3] = 0
        torch.testing.assert_close(layer.latent.grad, expected)
        assert (expected != 0).sum() > 300
    torch.testing.assert_close(layer.codebook.grad, book.grad)


@pytest.mark.parametrize("parity", [False, True])
def test_latents_of_either_zero_have_one_sign_everywhere(tmp_path, parity):
    model = nn.Sequential(nn.Linear(32, 16, bias=False))
    fresh = copy.deepcopy(model)
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=16, parity=parity)}))
    layer = next(compressed_layers(model))
    with torch.no_grad():
        layer.latent.fill_(1.0)
        freezer = SignFreezer([layer], 10, None)
        layer.latent[::4] = 0.0
        layer.latent[1::4] = -0.0
        layer.latent[2::4, 0] = -1.0
        layer.latent[2::4, 1] = 0.0  # with parity the one that turns
    freezer.after_step(1)
    assert freezer.measure().changed == pytest.approx((8 + 1) / 32)
    vq.save(model, tmp_path / "x")
    assert torch.equal(vq.load(tmp_path / "x", into=fresh)[0].weight, model[0].weight)
    negative = torch.signbit(model[0].weight.detach().reshape(-1, 8))
    assert not negative[::4].any() and negative[1::4].all()
    assert (negative[2::4].sum(1) == 1 + parity).all() and not negative[3::4].any()


class Chain(nn.Module):
    def __init__(self, tie=False):
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.fc = nn.Linear(32, 32)
        self.head = nn.Linear(32, 64, bias=False)
        if tie:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.fc(self.embed(tokens))))


def steps(model, count=10):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 64, (count, 16), generator=generator)
    return [(t, (t * 7 + 1) % 64) for t in tokens]


def test_shared_codebook_is_one_tensor_that_all_layers_train(tmp_path):
    model = Chain()
    recipe = Recipe({"fc": SSVQ(d=4, k=16, shared="s"), "head": SSVQ(d=4, k=16, shared="s")})
    result = vq.compress_(model, recipe)
    first, second = compressed_layers(model)
    assert first.codebook is second.codebook
    vq.finetune_(model, steps(model), epochs=3)
    vq.save(model, tmp_path / "x")
    with open_container(tmp_path / "x") as container:
        a, b = container.layers
        assert a.codebook == b.codebook
        assert container.codebook("fc").tolist() == container.codebook("head").tolist()
    loaded = vq.load(tmp_path / "x", into=Chain())
    assert torch.equal(loaded.head.weight, model.head.weight)
    alone = vq.compress_(Chain(), Recipe({"fc": SSVQ(d=4, k=16), "head": SSVQ(d=4, k=16)}))
    assert result.bits_per_weight < alone.bits_per_weight


@pytest.mark.parametrize(
    "method",
    [SSVQ(d=4, k=16), VQ(d=4, k=16), VQ(d=4, k=16, scale="output"), Int8(), Int4(group=16)],
    ids=str,
)
def test_tied_weights_stay_tied(tmp_path, method):
    model = Chain(tie=True)
    vq.compress_(model, Recipe({"*": method, "fc": None}))
    assert [layer.name for layer in compressed_layers(model)] == ["embed"]
    assert torch.equal(model.embed.weight, model.head.weight)
    before = model.head.weight.detach().clone()
    vq.finetune_(model, steps(model), epochs=3)
    assert torch.equal(model.embed.weight, model.head.weight)
    assert not torch.equal(model.head.weight, before)
    vq.save(model, tmp_path / "x")
    with open_container(tmp_path / "x") as container:
        assert [entry.geometry.name for entry in container.layers] == ["embed"]
        assert container.kept_names == ("fc.weight", "fc.bias")
    loaded = vq.load(tmp_path / "x", into=Chain(tie=True))
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert loaded.head.weight is loaded.embed.weight


def test_tied_weights_that_are_kept_are_stored_once(tmp_path):
    model = Chain(tie=True)
    vq.compress_(model, Recipe({"fc": SSVQ(d=4, k=16)}))
    vq.save(model, tmp_path / "x")
    with open_container(tmp_path / "x") as container:
        assert container.kept_names == ("embed.weight", "fc.bias")
    loaded = vq.load(tmp_path / "x", into=Chain(tie=True))
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_tied_layers_need_one_rule():
    with pytest.raises(RecipeError, match=r"layer 'head' must have the rule of 'embed', because"):
        vq.compress_(Chain(tie=True), Recipe({"embed": SSVQ(d=4), "fc": None}))


def test_module_used_twice_is_compressed_once(tmp_path):
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
    model.append(model[0])
    fresh = copy.deepcopy(model)
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=4)}))
    vq.save(model, tmp_path / "x")
    x = torch.randn(3, 32)
    assert torch.equal(vq.load(tmp_path / "x", into=fresh)(x), model(x))


def test_non_contiguous_weights_are_fine():
    model = nn.Sequential(nn.Linear(32, 16, bias=False))
    values = torch.randn(32, 16)
    model[0].weight = nn.Parameter(values.T)
    other = nn.Sequential(nn.Linear(32, 16, bias=False))
    other[0].weight = nn.Parameter(values.T.contiguous())
    for m in (model, other):
        vq.compress_(m, Recipe({"0": SSVQ(d=8, k=4)}))
    assert torch.equal(model[0].weight, other[0].weight)


def test_weights_that_are_computed_are_candidates_of_no_plain_parameter():
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abc"})
    model["b"].weight = model["a"].weight
    nn.utils.parametrizations.spectral_norm(model["c"])
    before = copy.deepcopy(model.state_dict())
    assert [name for name, _ in candidates(model)] == ["a", "b", "c"]
    assert plain_weight(model["a"]) is model["a"].weight and plain_weight(model["c"]) is None
    ids = [weight_id(module) for module in model.values()]
    assert ids[0] == ids[1] != ids[2] == weight_id(model["c"])
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


class Wrong(nn.Module):
    @property
    def weight(self):
        raise RuntimeError("not yet")


@pytest.mark.parametrize("module", [Wrong(), nn.LazyLinear(4), nn.LayerNorm(4), nn.ReLU()], ids=str)
def test_modules_without_a_matrix_are_no_candidates(module):
    assert list(candidates(nn.Sequential(module))) == []
