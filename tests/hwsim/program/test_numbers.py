"""Parameters in memory: a slot of eight bytes for each output, then one for four groups each."""

import numpy as np

from hwsim.program.numbers import parameter_slots
from hwsim.program.step import Numbers, Step, Tensor
from tests.hwsim.programs import SMALL  # 8 rows


def step(numbers: Numbers) -> Step:
    return Step("s", Tensor("x", 8), Tensor("y", len(numbers.bias)), numbers)


def test_one_slot_per_block():
    bias, multiplier = np.arange(-4, 6, dtype=np.int32) * 1000, np.arange(10, dtype=np.int16) - 5
    raw = parameter_slots(step(Numbers(bias, multiplier, np.full(10, 7, np.uint8))), SMALL)
    # bias, multiplier, shift, 0; two blocks of 8 outputs.
    assert len(raw) == 2 * 8 * 8
    assert raw[:8] == (-4000).to_bytes(4, "little", signed=True) + b"\xfb\xff\x07\x00"
    assert raw[8 * 9 : 8 * 10] == (5000).to_bytes(4, "little") + b"\x04\x00\x07\x00"
    # Outputs that are not there are 0, and shift by 1, as the hardware requires.
    assert raw[8 * 10 :] == b"\0\0\0\0\0\0\1\0" * 6


def test_scales_of_groups_follow_their_block():
    scale = (np.arange(10 * 6, dtype=np.int16).reshape(10, 6) + 1) * 100
    numbers = Numbers(
        *(np.zeros(10, t) for t in (np.int32, np.int16)), np.ones(10, np.uint8), scale
    )
    raw = parameter_slots(step(numbers), SMALL)
    # Two blocks of three slots: requantisation, groups 0 to 3, groups 4 and 5.
    slots = np.frombuffer(raw, "<i2").reshape(2, 3, 8, 4)
    assert slots[0, 1, 2].tolist() == scale[2, :4].tolist()
    assert slots[1, 2, 1].tolist() == [*scale[9, 4:].tolist(), 0, 0]
    assert (slots[1, 1:, 2:] == 0).all()
