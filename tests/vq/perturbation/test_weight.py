"""What a weight is while it learns is what is stored, bit for bit, and its gradients are A.2's."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.formats.test_grids import stored
from vq.container import Layer
from vq.formats.grids import on_grid, range_grid, spread
from vq.formats.scalar_weights import rounded, use_codes
from vq.inference.decode import decode_weight
from vq.layers import matrix_of
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.mask import Mask

KINDS = [
    vq.Int2(group=8, zeros=True), vq.Int2(group=8), vq.Int3(group=5, zeros=True), vq.Int4(group=99),
    vq.Int8(),
]  # fmt: skip
EVERYTHING = Composition(Perturb(Mask(2)), Clip())
LAYERS = {
    "linear": nn.Linear(20, 12),
    "conv2d": nn.Conv2d(4, 6, 3),
    "conv1d": nn.Conv1d(8, 6, 2, groups=2),
    "embedding": nn.Embedding(9, 10),
}


def learning(kind, op="linear", composition=EVERYTHING):
    torch.manual_seed(0)
    weight = torch.randn_like(LAYERS[op].weight)
    g = kind.geometry("fc", op, tuple(weight.shape))
    one = composition.weight(g, weight)
    for parameter in one.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return one, g, weight


@pytest.mark.parametrize("op", LAYERS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_learns_is_what_the_file_holds(kind, op, tmp_path):
    one, g, weight = learning(kind, op)
    seen = one(weight).detach()
    integers, grid = one.read(weight)
    assert torch.equal(matrix_of(seen, op, g.axis), on_grid(integers, grid, g))
    module = copy.deepcopy(LAYERS[op])
    use_codes([module], g, integers, grid)
    assert torch.equal(module.weight, seen)
    zero = None if grid.zero is None else grid.zero.numpy()
    layer = Layer.scalar(g, integers.numpy(), grid.scale.numpy(), zero)
    with stored(layer, tmp_path) as file:
        assert torch.equal(torch.from_numpy(file.weight("fc")), seen)
        assert torch.equal(decode_weight(file, "fc"), seen)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_its_parts_a_weight_is_rounded_to_nearest(kind):
    wide = Composition(clipping=Clip(start=100.0))  # a sigmoid of 1
    torch.manual_seed(0)
    weight = torch.randn(12, 20)
    g = kind.geometry("fc", "linear", (12, 20))
    plain = rounded(g, weight)(weight)
    assert torch.equal(wide.weight(g, weight)(weight), plain)
    assert torch.equal(Composition(Perturb()).weight(g, weight)(weight), plain), "D = 0"


@pytest.mark.parametrize("kind", [vq.Int2(group=8, zeros=True), vq.Int3(group=6)], ids=str)
def test_gradients_are_those_of_the_formula(kind):
    """By the published formula on one group at a time, with nothing of ours but the stored zero."""
    one, g, weight = learning(kind)
    against = torch.randn(12, 20)
    (one(weight) * against).sum().backward()
    move, clip = one.moves[0], one.clipping
    mine = [p.grad.clone() for p in one.parameters()]
    one.zero_grad()
    matrix = move(weight)
    levels = (1 << g.b) - 1
    total = torch.zeros(())
    for o in range(g.O):
        for k, start in enumerate(range(0, g.I, g.group)):
            w = matrix[o, start : start + g.group]
            high = torch.sigmoid(clip.gamma[o, k])
            if g.zeros:
                low = torch.sigmoid(clip.beta[o, k]) * min(w.min(), torch.zeros(()))
                s = (high * max(w.max(), torch.zeros(())) - low) / levels
                s = s + (s.half().float() - s).detach()
                z = torch.round(-low / s).detach()
            else:
                s = high * w.abs().max() / (levels / 2)
                s, z = s + (s.half().float() - s).detach(), 2.0 ** (g.b - 1)
            x = w / s
            code = x + (x.round() - x).detach() + z
            decoded = (code.clamp(0, levels) - z) * s
            total = total + (decoded * against[o, start : start + g.group]).sum()
    total.backward()
    for found, p in zip(mine, one.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-3, atol=1e-4)


def test_the_grid_follows_what_the_weight_has_moved_to():
    one, g, weight = learning(vq.Int4(group=99), composition=Composition(Perturb(Mask(2))))
    _, grid = one.read(weight)
    assert torch.equal(grid.scale, range_grid(one.moved(weight).detach(), g).scale)
    assert not torch.equal(grid.scale, range_grid(weight, g).scale)
    assert spread(grid.scale, g).shape == weight.shape


def test_other_dtypes_see_the_decoded_weight_in_their_own():
    g = vq.Int4(group=8).geometry("fc", "linear", (12, 20))
    weight = torch.randn(12, 20).bfloat16()
    assert EVERYTHING.weight(g, weight)(weight).dtype == torch.bfloat16
