"""The golden model: equal to plain loops over integers, and near the real model."""

import numpy as np
import pytest
import torch

from tests.vq.integer import naive
from tests.vq.integer.models import GROUPED, RECIPES, SHAPES, Small, Wave, inputs, stored
from vq.container import ContainerError, open_container
from vq.integer import Graph, IntegerModel, Node, read_integer, run
from vq.integer.golden import Parameters
from vq.integer.store import check_parameters

KINDS = pytest.mark.parametrize("kind", [Small, Wave])
RECIPE = pytest.mark.parametrize("recipes", [RECIPES, GROUPED], ids=["plain", "grouped"])


@RECIPE
@KINDS
def test_every_node_equals_the_loops(tmp_path, kind, recipes):
    path, _, _ = stored(kind, tmp_path, recipe=recipes[kind])
    rng = np.random.default_rng(0)
    images = rng.integers(-128, 128, (3, *SHAPES[kind])).astype(np.int8)
    images[1], images[2] = 127, -128  # the greatest sums
    with open_container(path) as file:
        model = read_integer(file)
        assert np.array_equal(run(file, images), model.run(images))
    traced = model.trace(images)
    for i, image in enumerate(images):
        want = naive.forward(path, image)
        assert list(want) == list(traced)
        for name, value in want.items():
            assert np.array_equal(traced[name][i], value), (name, i)
    assert np.array_equal(model.run(images), traced[model.graph.output.name])


@RECIPE
@KINDS
def test_batches_do_not_meet(tmp_path, kind, recipes):
    """More images than are computed at a time, and none."""
    _, _, model = stored(kind, tmp_path, recipe=recipes[kind])
    images = np.random.default_rng(0).integers(-128, 128, (37, *SHAPES[kind])).astype(np.int8)
    whole = model.run(images)
    assert np.array_equal(whole, np.concatenate([model.run(images[i : i + 1]) for i in range(37)]))
    assert model.run(images[:0]).shape == (0, *model.graph.output.shape)


@RECIPE
@KINDS
@pytest.mark.parametrize("choice", ["max", "percentile", "mse"])
def test_outputs_are_near_the_real_model(tmp_path, kind, choice, recipes):
    _, dense, model = stored(kind, tmp_path, choice, recipes[kind])
    for x in inputs(kind):
        want = dense(x).detach().numpy()
        found = model.dequantize(model.run(model.quantize(x.numpy())))
        error = np.sqrt(((found - want) ** 2).mean() / (want**2).mean())
        assert error < 0.06


def test_sums_beyond_float32_are_exact():
    """A sum of nearly 2**30 and a bias that leaves its lowest bits, which float32 would round."""
    count = 60_000
    weight = np.full((1, count), 127, np.int8)
    graph = Graph((Node("x", "input", (), (count,)), Node("y", "linear", ("x",), (1,), layer="y")))
    bias = np.array([-127 * 127 * count], np.int32)
    p = Parameters(np.array([1], np.int16), np.array([1], np.uint8), bias, weight)
    check_parameters(graph.output, p)
    none = np.ones(count, np.float32)
    model = IntegerModel(graph, {"y": p}, none, none, np.ones(2, np.float32))
    x = np.full((1, count), 127, np.int8)
    x[0, 0] = 126
    assert model.run(x).tolist() == [[(-127 + 1) >> 1]]


def test_quantisation_of_the_input(tmp_path):
    _, _, model = stored(Small, tmp_path)
    x = np.random.default_rng(0).random((4, *SHAPES[Small])).astype(np.float32) * 2 - 0.5
    gain, offset = (v[:, None, None] for v in (model.gain, model.offset))
    want = np.clip(np.rint(x * gain + offset), -128, 127)
    assert np.array_equal(model.quantize(x), want)
    normal = (x - np.float32([0.4, 0.5])[:, None, None]) / 0.25
    step = model.scales[0]
    inside = np.abs(normal) < 126 * step
    assert np.abs(model.quantize(x) * step - normal)[inside].max() <= step * 0.501


def test_wrong_inputs_are_refused(tmp_path):
    path, _, model = stored(Small, tmp_path)
    message = r"input must be \[B, 2, 9, 7\], not \[4, 2, 9, 8\]"
    with pytest.raises(ContainerError, match=message):
        model.run(np.zeros((4, 2, 9, 8), np.int8))
    with pytest.raises(ContainerError, match="input must be finite"):
        model.quantize(np.full((1, 2, 9, 7), np.nan, np.float32))
    with open_container(path) as file:
        real = run(file, torch.zeros(1, 2, 9, 7).numpy())
        assert np.array_equal(real, run(file, model.quantize(np.zeros((1, 2, 9, 7), np.float32))))
