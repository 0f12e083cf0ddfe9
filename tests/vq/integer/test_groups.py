"""Scales of groups as 16-bit numbers: by hand, against unbounded integers, and their bounds."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vq
from tests.vq.container.samples import PROPERTY
from vq import Int3, Int4, Recipe
from vq.container import ContainerError
from vq.container.order import to_matrix
from vq.integer import Graph, IntegerModel, Node, add_integer
from vq.integer.fixed import ACCUMULATOR_MAX, MULTIPLIER_MAX
from vq.integer.golden import Parameters
from vq.integer.groups import (
    GROUP_SHIFT_MAX,
    inputs_of_groups,
    partial_reach,
    reach,
    rescale,
    to_groups,
)
from vq.integer.store import check_parameters


def test_scales_by_hand():
    """Relative to the greatest of their output; groups of zeros do not count."""
    scale = np.array([[0.5, -0.25, 0.001], [2.0**-20, 4.0, 0], [3, 3, 3]])
    partial = np.array([[128, 128, 128], [1280, 0, 128], [0, 0, 0]])
    numbers, shift, unit = to_groups(scale, partial)
    assert numbers.tolist() == [[32767, -16384, 66], [32767, 0, 0], [0, 0, 0]]
    assert shift == 0
    assert unit.tolist() == [0.5 / 32767, 2.0**-20 / 32767, 1 / 32767]


def test_the_shift_leaves_room_for_a_bias():
    partial = np.array([[2**13, 2**12]])  # 3 * 2**12 * 32767 is 1.5 * 2**28 less 3 * 2**12
    for factor, want in ((1, 1), (2, 2), (16, 5)):
        numbers, shift, unit = to_groups(np.array([[1.0, 1.0]]), factor * partial)
        assert (shift, unit.tolist()) == (want, [2**want / 32767])
        assert 2**27 < reach(numbers, shift, factor * partial)[0] <= 2**28


def test_the_shift_ends_where_hardware_does():
    """The check on reading refuses such a layer; choosing its numbers must not fail before."""
    numbers, shift, _ = to_groups(np.array([[1.0]]), np.array([[2**47]]))
    assert (shift, reach(numbers, shift, np.array([[2**47]])).tolist()) == (31, [32767 * 2**16])


@PROPERTY
@given(
    st.integers(-ACCUMULATOR_MAX, ACCUMULATOR_MAX),
    st.integers(-MULTIPLIER_MAX, MULTIPLIER_MAX),
    st.integers(0, GROUP_SHIFT_MAX),
)
def test_rescaling_is_that_of_unbounded_integers(partial, scale, shift):
    want = (partial * scale + (2 ** (shift - 1) if shift else 0)) // 2**shift
    found = rescale(np.array([partial]), np.array([scale], np.int16), shift)
    assert found.tolist() == [want]
    assert -(2**47) <= partial * scale + 2**shift // 2 < 2**47


@PROPERTY
@given(st.integers(0, 40), st.integers(-40, 40), st.integers(0, 6))
def test_the_reach_of_a_group_is_what_its_sums_reach(most, scale, shift):
    """Of all sums up to ``most`` in magnitude, none goes further, and one goes as far."""
    sums = np.arange(-most, most + 1)
    numbers = np.full((1, len(sums)), scale, np.int16)
    found = np.abs(rescale(sums[None], numbers, shift)).max()
    assert reach(np.array([[scale]], np.int16), shift, np.array([[most]])).tolist() == [found]


@PROPERTY
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_sums_are_near_those_of_real_scales(outputs, count, seed):
    rng = np.random.default_rng(seed)
    scale = rng.standard_normal((outputs, count)) * 10.0 ** rng.integers(-6, 6, (outputs, 1))
    most = 128 * rng.integers(0, 10 ** rng.integers(1, 6), (outputs, count))
    numbers, shift, unit = to_groups(scale, most)
    used = most > 0
    assert (np.abs(numbers).max(axis=1) == np.where(used.any(axis=1), MULTIPLIER_MAX, 0)).all()
    assert reach(numbers, shift, most).max() <= 2**28
    partial = rng.integers(-most, most + 1)
    total = rescale(partial, numbers, shift).sum(axis=1) * unit
    real = (partial * scale).sum(axis=1)
    # Half a step of every scale, and half a step of the accumulator for every group.
    bound = (np.abs(partial) * (unit / 2**shift)[:, None] + unit[:, None]).sum(axis=1) / 2
    assert (np.abs(total - real) <= bound * (1 + 1e-9)).all()


@pytest.mark.parametrize("shape", [(1, 6), (1, 5, 3), (1, 4, 3, 2)])
@pytest.mark.parametrize("group", [1, 4, 7, 10**9])
def test_groups_run_along_the_columns_of_the_container(shape, group):
    column = to_matrix(np.arange(np.prod(shape)).reshape(shape), "in")[0]
    parts = inputs_of_groups(shape, group)
    assert list(itertools.chain.from_iterable(p.tolist() for p in parts)) == column.tolist()
    assert [len(p) for p in parts[:-1]] == [group] * (len(parts) - 1)
    weight = np.arange(-3, np.prod(shape) - 3).astype(np.int8).reshape(shape)
    flat = np.abs(weight.reshape(-1).astype(int))
    assert partial_reach(weight, group).tolist() == [[128 * int(flat[p].sum()) for p in parts]]


def one_linear(weight, group, scale, shift) -> IntegerModel:
    outputs, count = weight.shape
    graph = Graph(
        (
            Node("x", "input", (), (count,)),
            Node("y", "linear", ("x",), (outputs,), layer="y"),
        ),
        version=2,
    )
    p = Parameters(
        np.ones(outputs, np.int16), np.ones(outputs, np.uint8), np.zeros(outputs, np.int32),
        weight, group, scale, np.array([shift], np.uint8),
    )  # fmt: skip
    check_parameters(graph.output, p)
    none = np.ones(count, np.float32)
    return IntegerModel(graph, {"y": p}, none, none, np.ones(2, np.float32))


def test_every_group_rounds_by_itself():
    """Groups of 1, 1 and 1 times 1, shifted by 1: each rounds up, so their sum is 3 and not 2."""
    weight = np.array([[1, 1, 1], [-1, -1, -1]], np.int8)
    x = np.array([[1, 1, 1]], np.int8)
    model = one_linear(weight, 1, np.ones((2, 3), np.int16), 1)
    assert model.run(x).tolist() == [[(3 + 1) >> 1, 0]]
    model = one_linear(weight, 1, np.ones((2, 3), np.int16), 0)
    assert model.run(x).tolist() == [[(3 + 1) >> 1, (-3 + 1) >> 1]]
    model = one_linear(weight, 2, np.array([[40, -6], [2, 2]], np.int16), 2)
    assert model.run(x).tolist() == [[(20 - 1 + 1) >> 1, (-1 + 0 + 1) >> 1]]


def test_sums_of_a_group_must_fit_int32():
    """Even where the accumulator is far from full."""
    weight = np.full((1, 132_105), 127, np.int8)
    for last in (7, 8):  # 128 * (127 * 132104 + 8) is 2**31
        weight[0, -1] = last
        one_linear(weight, 66_053, np.ones((1, 2), np.int16), 31)
        if last == 7:
            one_linear(weight, 132_105, np.ones((1, 1), np.int16), 31)
    with pytest.raises(
        ContainerError, match="node 'y': sum of a group must fit int32, but can reach 2147483648"
    ):
        one_linear(weight, 132_105, np.ones((1, 1), np.int16), 31)


def test_sums_beyond_float32_are_exact():
    """The sum of a group near 2**30, of which float32 would lose the lowest bits."""
    count = 60_000
    x = np.full((1, count), 127, np.int8)
    x[0, 0] = 126
    total = 127 * (127 * count - 1)
    for shift in (23, 24):
        scale = np.array([[3]], np.int16)
        model = one_linear(np.full((1, count), 127, np.int8), count, scale, shift)
        value = (total * 3 + 2 ** (shift - 1)) >> shift
        assert model.run(x).tolist() == [[min(127, (value + 1) >> 1)]]
    model = one_linear(np.full((1, count), 127, np.int8), count, np.array([[1]], np.int16), 0)
    p = model.parameters["y"]
    p.bias[:] = -total + 5
    assert model.run(x).tolist() == [[(5 + 1) >> 1]]


class Wide(nn.Module):
    """Groups of very different size, a negative scale's worth of gain, an output of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 8)
        with torch.no_grad():
            self.fc.weight *= torch.logspace(-4, 2, 64)
            self.fc.weight[2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


@pytest.mark.parametrize("method", [Int4(group=8), Int3(group=16, zeros=True), Int4()], ids=str)
def test_groups_of_very_different_size(tmp_path, method):
    torch.manual_seed(0)
    model = Wide()
    fresh = Wide()
    vq.compress_(model, Recipe({"*": method}))
    path = tmp_path / "x.vq.safetensors"
    vq.save(model, path)
    data = [torch.randn(64, 64)]
    integer = add_integer(path, fresh, data, choice="max")
    want = model(data[0]).detach().numpy()
    found = integer.dequantize(integer.run(integer.quantize(data[0].numpy())))
    assert np.abs(found - want).max() < 4 * integer.scales[-1]
    assert np.abs(found[:, 2] - want[:, 2]).max() <= integer.scales[-1] / 2 * 1.001


def test_resnet20_in_int4_groups_is_as_good_in_integers(tmp_path):
    from signbook.data import cifar10_exact
    from signbook.evaluation import evaluate, load_integer
    from signbook.zoo.resnet import load_resnet20, resnet20
    from tests.signbook.shared import shared

    shared("cifar10_exact/cifar10_exact.npz")
    model = load_resnet20(shared("resnet_cifar10/resnet20-12fca82f.th"))
    vq.compress_(model, Recipe({"*": Int4(group=64, zeros=True)}))
    path = tmp_path / "r20.vq.safetensors"
    vq.save(model, path)
    add_integer(path, resnet20(), list(cifar10_exact(split="train", limit=256).batches))
    some = cifar10_exact(limit=300)

    def top1(model):
        return evaluate(model.eval(), some, device="cpu").metrics["top1"]

    dense = top1(vq.load(path, into=resnet20()))
    assert dense > 0.88
    assert top1(load_integer(path)) == pytest.approx(dense, abs=0.015)
