"""Grouped methods: grids by hand, nearest levels, extremes, and codes that something else chose."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn

import vq
from tests.vq.container.samples import PROPERTY
from tests.vq.models import Net
from vq import Int2, Int3, Int4, Recipe
from vq.container import Layer, open_container, write_container
from vq.container.order import from_stream
from vq.errors import WeightError
from vq.export import export_dense
from vq.formats.grids import Grid, range_grid
from vq.formats.model import compressed_layers
from vq.formats.scalar_weights import ScalarWeight
from vq.inference.decode import decode_weight

KINDS = {2: Int2, 3: Int3, 4: Int4}


def rounded(matrix, method):
    """Layer of a matrix [O, I], and what its module computes with."""
    matrix = torch.as_tensor(matrix, dtype=torch.float32)
    model = nn.Sequential(nn.Linear(matrix.shape[1], matrix.shape[0], bias=False))
    with torch.no_grad():
        model[0].weight.copy_(matrix)
    vq.compress_(model, Recipe({"0": method}))
    (layer,) = compressed_layers(model)
    return layer.to_layer(), model[0].weight.detach()


def stored(layer, tmp_path):
    write_container(tmp_path / "x", [layer])
    return open_container(tmp_path / "x")


def test_symmetric_grid_by_hand(tmp_path):
    """Groups [-3, 1.5, 0.4], [0.6], [0, 0, 0], [-7]: scales 0.4, 0.08, none, 7 / 7.5."""
    layer, weight = rounded([[-3, 1.5, 0.4, 0.6], [0, 0, 0, -7]], Int4(group=3, tile_outputs=1))
    scales = np.float16([0.4, 0.08, 1, 7 / 7.5])
    assert layer.group_scales.tolist() == scales.tolist()
    assert layer.group_zeros is None
    steps = np.float32([[-8, 4, 1, 7], [0, 0, 0, -8]])  # 7.5 saturates at 7; ties go to even
    want = steps * scales.astype(np.float32)[[[0, 0, 0, 1], [2, 2, 2, 3]]]
    assert np.array_equal(weight, want)
    with stored(layer, tmp_path) as file:
        assert file.integers("0").tolist() == steps.tolist()


def test_asymmetric_grid_by_hand():
    """Ranges -1 to 2, 0 to 3, -3 to 0 and, between levels, -0.7 to 2.3: 0 is always a level."""
    matrix = [[-1, 2, 0.4], [1, 3, 2], [-1, -3, -2], [-0.7, 2.3, 0.1]]
    layer, weight = rounded(matrix, Int2(zeros=True, tile_outputs=1))
    assert layer.group_scales.tolist() == [1, 1, 1, 1]
    assert layer.group_zeros.tolist() == [1, 0, 3, 1]
    assert weight.tolist() == [[-1, 2, 0], [1, 3, 2], [-1, -3, -2], [-1, 2, 0]]


@st.composite
def cases(draw):
    bits = draw(st.sampled_from((2, 3, 4)))
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 40))
    method = KINDS[bits](
        group=draw(st.sampled_from((1, 3, 8, 32, 1000))),
        zeros=draw(st.booleans()),
        tile_outputs=draw(st.sampled_from((1, 4, 16))),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix = rng.standard_normal(shape) + draw(st.sampled_from((0, 0, 1, -5)))
    matrix *= 10.0 ** draw(st.integers(-12, 4))
    matrix[rng.random(shape) < draw(st.sampled_from((0, 0.7)))] = 0
    return method, matrix.astype(np.float32)


@PROPERTY
@given(cases())
def test_every_weight_takes_the_nearest_level(case):
    """Against a search over all levels, group by group, in float64."""
    method, matrix = case
    layer, weight = rounded(matrix, method)
    g = layer.geometry
    levels = (1 << g.b) - 1
    scales = from_stream(layer.group_scales, g.O, g.groups // g.O, g.tile).astype(np.float64)
    zeros = np.full(scales.shape, 1 << (g.b - 1))
    if g.zeros:
        zeros = from_stream(layer.group_zeros, g.O, g.groups // g.O, g.tile).astype(int)
    assert np.isfinite(scales).all() and (scales > 0).all()
    for (o, i), w in np.ndenumerate(matrix.astype(np.float64)):
        group = o, i // method.group
        scale = scales[group]
        choices = (np.arange(levels + 1) - zeros[group]) * scale
        error = abs(float(weight[o, i]) - w)
        assert error <= np.abs(choices - w).min() * (1 + 1e-6)
        # Half a level, of a scale that fp16 rounds and a zero that rounds.
        slack = levels * max(scale * 2**-11, 2**-25) + (scale if g.zeros else 0) / 2
        assert error <= scale / 2 + slack * (1 + 1e-6)
    assert not np.signbit(weight.numpy()[weight.numpy() == 0]).any()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_all_readers_give_the_very_bits_of_the_module(tmp_path, bits, zeros):
    torch.manual_seed(bits)
    model = nn.Sequential(nn.Conv2d(5, 7, 3), nn.Linear(70, 9))
    vq.compress_(model, Recipe({"*": KINDS[bits](group=32, zeros=zeros, tile_outputs=4)}))
    path = tmp_path / "x.vq.safetensors"
    vq.save(model, path)
    export_dense(path, tmp_path / "dense")
    dense = load_file(tmp_path / "dense")
    with open_container(path) as file:
        for name in ("0", "1"):
            want = model.get_submodule(name).weight.detach().numpy().tobytes()
            assert file.weight(name).tobytes() == want
            assert decode_weight(file, name).numpy().tobytes() == want
            assert dense[f"{name}.weight"].tobytes() == want
            g = file.geometry(name)
            assert (g.group, g.zeros, g.b) == (32, zeros, bits)
            assert np.unique(file.integers(name)).size >= 1 << bits


def test_a_group_larger_than_the_layer_is_an_output():
    a, first = rounded(np.eye(5, 9), Int3(group=9))
    b, second = rounded(np.eye(5, 9), Int3(group=10**6))
    assert a.geometry.groups == b.geometry.groups == 5
    assert torch.equal(first, second)


@pytest.mark.parametrize("zeros", [False, True])
def test_scales_at_the_ends_of_fp16(zeros):
    """The greatest scale is used, a greater one is refused; the least is the least there is."""
    method = Int4(zeros=zeros)
    most = 65504.0 * (15 if zeros else 7.5)
    layer, weight = rounded([[most, 0.0]], method)
    assert layer.group_scales.tolist() == [65504.0]
    assert weight.tolist() == [[65504.0 * (15 if zeros else 7), 0]]
    layer, weight = rounded([[1e-7, 1e-9, -1e-38]], method)
    assert layer.group_scales.tolist() == [2.0**-24]
    assert weight.tolist() == [[2.0**-23, 0, 0]]
    layer, weight = rounded([[-1.25e-6, 0.0]], method)  # the scale loses 0.4 of its one step
    assert layer.group_scales.tolist() == [2.0**-24 * (1 if zeros else 3)]
    assert weight[0, 0] == -15 * 2.0**-24 if zeros else abs(weight[0, 0] + 1.25e-6) < 1e-7
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    for value in (most * 1.001, 3e38):
        nn.init.constant_(model[0].weight, value)
        with pytest.raises(WeightError, match=r"^layer '0': weights must be at most .* of int4"):
            vq.compress_(model, Recipe({"*": method}))
        assert not list(compressed_layers(model))


@pytest.mark.parametrize("fill", [0.0, 0.25, -3.0])
def test_constant_layers_are_near(fill):
    model = Net()
    nn.init.constant_(model.fc1.weight, fill)
    vq.compress_(model, Recipe({"fc1": Int4(zeros=True)}))
    torch.testing.assert_close(
        model.fc1.weight, torch.full((48, 64), fill), rtol=2**-10, atol=0
    )  # a group of one value is a level at the end of its range


@PROPERTY
@given(
    st.sampled_from((2, 3, 4)), st.booleans(), st.integers(1, 12), st.integers(0, 2**32),
    st.booleans(),
)  # fmt: skip
def test_codes_that_something_else_chose_are_kept(bits, zeros, group, seed, tiny):
    """Any codes on any grid: as a weight, they round to themselves."""
    rng = np.random.default_rng(seed)
    g = KINDS[bits](group=group, zeros=zeros, tile_outputs=2).geometry("a", "linear", (3, 10))
    count = g.groups // 3
    codes = rng.integers(0, 1 << bits, (3, 10)).astype(np.uint8)
    scale = rng.standard_normal((3, count)) * (1e-7 if tiny else 1)
    scale = np.where(np.float16(scale) == 0, 1, scale).astype(np.float16)
    zero = rng.integers(0, 1 << bits, (3, count)).astype(np.uint8) if zeros else None
    shift = 1 << (bits - 1) if zero is None else np.repeat(zero, group, 1)[:, :10].astype(int)
    steps = (codes.astype(int) - shift).astype(np.float32)
    weight = torch.from_numpy(steps * np.repeat(scale, group, 1)[:, :10].astype(np.float32))
    grid = Grid(
        torch.from_numpy(scale.astype(np.float32)), None if zero is None else torch.from_numpy(zero)
    )
    module = ScalarWeight(g, weight, grid)
    assert torch.equal(module(*module.originals(weight)), weight)
    want = Layer.grouped(
        "a", method=g.method, codes=codes, group_scales=scale, group_zeros=zero, group=group,
        tile_outputs=2,
    )  # fmt: skip
    found = module.to_layer("a", *module.originals(weight))
    assert found.geometry == want.geometry
    assert np.array_equal(found.stream, want.stream)
    assert np.array_equal(found.group_scales, want.group_scales)
    assert (found.group_zeros is None) == (not zeros)
    assert not zeros or np.array_equal(found.group_zeros, want.group_zeros)


def test_training_moves_codes_on_a_grid_that_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 6, bias=False))
    vq.compress_(model, Recipe({"*": Int3(group=16)}))
    (layer,) = compressed_layers(model)
    assert layer.codebook is None and layer.latent is None
    before = layer.to_layer()
    grad = torch.randn(6, 40)
    layer.module.weight.backward(grad)
    torch.testing.assert_close(layer.originals[0].grad, grad)
    with torch.no_grad():
        layer.originals[0].mul_(1.5)
    after = layer.to_layer()
    assert np.array_equal(after.group_scales, before.group_scales)
    assert not np.array_equal(after.stream, before.stream)
    assert torch.equal(
        layer.module.weight.detach().amax(), 3 * layer.weight.scale.amax()
    )  # pushed past the end, it saturates


def test_scales_are_those_of_the_matrix_and_not_of_the_taps():
    """Groups run along the inputs with channels innermost, as the container's do."""
    weight = torch.zeros(1, 4, 1, 2)
    weight[0, :, 0, 0], weight[0, :, 0, 1] = 3, 30  # a group for each tap
    model = nn.Sequential(nn.Conv2d(4, 1, (1, 2), bias=False))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    vq.compress_(model, Recipe({"*": Int2(group=4, zeros=True)}))
    (layer,) = compressed_layers(model)
    assert layer.to_layer().group_scales.tolist() == [1, 10]
    assert torch.equal(model[0].weight.detach(), weight)


def test_more_bits_smaller_groups_and_zeros_give_less_error():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 256) + 0.3)

    def error(method):
        model = nn.Sequential(nn.Linear(256, 64, bias=False))
        model[0].weight = nn.Parameter(weight.detach().clone())
        return vq.compress_(model, Recipe({"*": method})).layers[0].relative_error

    for methods in (
        [Int2(), Int3(), Int4()],
        [Int4(group=256), Int4(group=64), Int4(group=16)],
        [Int2(group=32), Int2(group=32, zeros=True)],
    ):
        errors = [error(method) for method in methods]
        assert errors == sorted(errors, reverse=True)


def test_grids_of_ragged_groups_do_not_see_filling():
    g = Int4(group=4, zeros=True).geometry("a", "linear", (1, 6))
    grid = range_grid(torch.tensor([[1.0, 2, 3, 15, 30, 30]]), g)
    assert grid.scale.tolist() == [[1, 2]]
    assert grid.zero is not None and grid.zero.tolist() == [[0, 0]]
