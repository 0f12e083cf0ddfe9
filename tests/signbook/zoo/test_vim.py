"""Vision Mamba: what it computes, and what the rest of the house makes of it."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy, silu, softplus

import vq
from signbook.data import mnist
from signbook.evaluation import evaluate
from signbook.naming import resolve_model
from signbook.zoo import vim
from signbook.zoo.digits import load_digits, top1
from signbook.zoo.fitting import fit
from tests.signbook.shared import shared
from vq.calibration.survey import survey
from vq.errors import ConfigError
from vq.formats.model import compressed_layers
from vq.learning.observed import blocks_of

RECIPE = vq.Recipe({
    name: vq.VQ(d=4, k=8) for name in ("blocks.*.in_proj", "blocks.*.x_proj", "blocks.*.out_proj")
})  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def along(part, x):
    """A direction by its definition, [B, L, E], token by token."""
    taps = part.conv.weight[:, 0]  # [E, 4], the last for the present token
    y = []
    h = torch.zeros(len(x), *part.A_log.shape)
    for t in range(x.shape[1]):
        seen = [(taps[:, -1 - i] * x[:, t - i]) for i in range(min(t + 1, taps.shape[1]))]
        u = silu(sum(seen) + part.conv.bias)
        dt, B, C = part.x_proj(u).split(part.sizes, -1)
        dt = softplus(part.dt_proj(dt))[..., None]
        h = (-dt * part.A_log.exp()).exp() * h + dt * B[:, None] * u[..., None]
        y.append((h * C[:, None]).sum(-1) + part.D * u)
    return torch.stack(y, 1)


@torch.no_grad()
def test_it_computes_what_the_papers_define(images):
    model = vim.digits()
    # Patches from left to right, and from top to bottom.
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(6, 16, 4)
    x = patches @ model.embed.weight.reshape(32, 4).T + model.embed.bias + model.position
    for block in model.blocks:
        normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm.weight
        inner, z = block.in_proj(normed).split(64, -1)
        both = along(block.ahead, inner) + along(block.back, inner.flip(1)).flip(1)
        x = x + block.out_proj(both * silu(z))
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * model.norm.weight
    torch.testing.assert_close(model(images), model.head(x.mean(1)), rtol=1e-4, atol=1e-5)


def test_backwards_is_the_same_on_the_reversed_sequence():
    """With both directions alike, a block turns around what is turned around."""
    block = vim.digits().blocks[0]
    x = torch.randn(2, 16, 32)
    assert not torch.allclose(block(x.flip(1)).flip(1), block(x))
    block.back.load_state_dict(block.ahead.state_dict())
    torch.testing.assert_close(block(x.flip(1)).flip(1), block(x))


@pytest.mark.parametrize("changed", [0, 5, 15])
def test_each_direction_sees_its_own_side(changed):
    ahead = vim.digits().blocks[0].ahead
    x = torch.randn(1, 16, 64)
    other = x.clone()
    other[:, changed] += 1
    differs = (ahead(x) != ahead(other)).any(-1)[0]
    assert differs.tolist() == [t >= changed for t in range(16)]


def test_steps_begin_within_the_range_of_the_paper():
    part = vim.digits().blocks[0].ahead
    steps = softplus(part.dt_proj.bias)
    assert 1e-3 <= steps.min() < 3e-3 and 3e-2 < steps.max() <= 1e-1
    rates = part.A_log.detach().exp()
    torch.testing.assert_close(rates, torch.arange(1.0, 9).expand(64, 8))


@pytest.mark.parametrize(
    ("build", "shape", "tokens", "weights"),
    [
        (vim.digits, (1, 8, 8), 16, 17_408),  # 4,352 sub-vectors of 4
        (vim.mnist, (1, 28, 28), 49, 70_656),
        (vim.cifar10, (3, 32, 32), 64, 118_784),
    ],
)
def test_sizes(build, shape, tokens, weights):
    model = build().eval()
    assert model(torch.rand(2, *shape)).shape == (2, 10) and len(model.position) == tokens
    chosen = RECIPE.resolve([name for name, _ in model.named_modules() if name])
    layers = [model.get_submodule(name) for name, format in chosen.items() if format is not None]
    assert len(layers) == 4 * len(model.blocks)
    assert sum(layer.weight.numel() for layer in layers) == weights


def test_one_image_does_not_see_another(images):
    model = vim.digits().eval()
    spoilt = images.clone()
    spoilt[1, 0, 3, 3] = torch.nan
    logits, other = model(images), model(spoilt)
    assert other[1].isnan().all()
    rest = torch.arange(6) != 1
    torch.testing.assert_close(other[rest], logits[rest])


def test_mnist_and_cifar10_take_values_from_0_to_1():
    assert vim.mnist().normalize(torch.full((1, 1, 28, 28), 0.1307)).abs().max() < 1e-6
    spread = vim.cifar10().normalize(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32))
    assert spread[0].max() < -1.5 and spread[1].min() > 1.5


def test_size_that_patches_do_not_fill():
    with pytest.raises(ConfigError, match="size must be a multiple of the patch, 3 pixels, not 8"):
        vim.VisionMamba(size=8, channels=1, patch=3, width=8, depth=1)


@pytest.mark.parametrize("name", ["size", "channels", "patch", "width", "depth", "state", "rank"])
def test_size_of_nothing(name):
    sizes = dict(size=8, channels=1, patch=2, width=8, depth=1) | {name: 0}
    with pytest.raises(ConfigError, match=f"^{name} must be at least 1, not 0"):
        vim.VisionMamba(**sizes)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 9), (2, 1, 10, 10), (1, 8, 8)])
def test_images_of_another_shape(shape):
    with pytest.raises(ConfigError, match=r"^images must be \[B, 1, 8, 8\], not \["):
        vim.digits()(torch.rand(shape))


def test_it_learns(images):
    labels = torch.arange(6)
    model = fit(vim.digits(), [(images, labels)], cross_entropy, epochs=40, rate=1e-2, clip=1.0)
    assert torch.equal(model(images).argmax(1), labels)


def test_it_is_compressed_tuned_saved_and_loaded(images, tmp_path):
    model = vim.digits().eval()
    teacher = copy.deepcopy(model)
    vq.compress_(model, RECIPE)
    vq.finetune_(model, [images], epochs=2, teacher=teacher)
    path = tmp_path / "m.vq.safetensors"
    vq.save(model, path)
    loaded = vq.load(path, into=vim.digits()).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))
        assert not torch.allclose(loaded(images), teacher(images))


def test_its_blocks_are_found_and_tuned_one_by_one(images):
    model = vim.digits().eval()
    teacher = copy.deepcopy(model)
    vq.compress_(model, RECIPE)
    names = ["blocks.0", "blocks.1"]
    assert blocks_of(model) == names
    found = survey(model, [images], [layer.name for layer in compressed_layers(model)])
    assert found.chain is not None and found.chain.names == tuple(names)
    assert found.places["blocks.1.back.x_proj"] == 1
    result = vq.finetune_blocks_(model, [images], teacher, epochs=10)
    assert [block.name for block in result.blocks] == names
    assert all(block.after < 0.98 * block.before for block in result.blocks)


def test_names_give_what_was_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(vim, "_train_digits", lambda model, seed: calls.append(seed))
    for _ in range(2):
        model = resolve_model("py:signbook.zoo.vim:trained_digits?seed=3")
    assert isinstance(model, vim.VisionMamba) and calls == [3]


@pytest.mark.slow
def test_digits_are_learned(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    assert top1(vim.trained_digits(), load_digits()) >= 0.975


@pytest.mark.slow
def test_mnist_is_learned(tmp_path, monkeypatch):
    shared("mnist/t10k-images-idx3-ubyte.gz")
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    assert evaluate(vim.trained_mnist(), mnist()).metrics["top1"] >= 0.96
