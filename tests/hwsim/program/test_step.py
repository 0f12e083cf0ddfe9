"""Steps and tensors: shapes in the graph and in memory."""

import numpy as np
import pytest

from hwsim.program.step import Addition, Numbers, Step, Tensor
from tests.hwsim.containers import Maker, write
from vq.container import open_container


@pytest.mark.parametrize("channels_first", [True, False])
def test_memory_has_channels_last(channels_first):
    tensor = Tensor("t", 3, height=2, width=4, channels_first=channels_first)
    shape = (3, 2, 4) if channels_first else (8, 3)
    value = np.arange(24, dtype=np.int8).reshape(shape)
    stored = tensor.to_memory(value)
    assert stored.shape == (2, 4, 3) and tensor.positions == 8
    pixel = value[:, 1, 2] if channels_first else value[6]
    assert stored[1, 2].tolist() == pixel.tolist()
    assert np.array_equal(tensor.from_memory(stored), value)


def test_numbers_that_change_nothing():
    numbers = Numbers.same(3)
    assert (numbers.bias == 0).all() and (numbers.multiplier == 1 << numbers.shift).all()
    assert numbers.groups == 0
    assert Numbers(*[np.zeros(3, int)] * 3, group_scale=np.ones((3, 5), np.int16)).groups == 5


def test_what_a_step_reads_and_multiplies(tmp_path):
    source, target, other = (Tensor(name, 8, height=2) for name in "abc")
    copy = Step("copy", source, target, Numbers.same(8))
    assert (copy.reads, copy.macs, copy.group_inputs) == ({source}, 0, 8)
    added = Step("add", source, target, Numbers.same(8), addition=Addition(other, 1, 1, 1, False))
    assert added.reads == {source, other}
    path = write(tmp_path / "x.vq.safetensors", [Maker().int8("fc", (8, 8))])
    with open_container(path) as container:
        linear = Step("fc", source, target, Numbers.same(8), entry=container.layers[0], groups=2)
    assert (linear.macs, linear.group_inputs) == (8 * 8 * 2, 4)
