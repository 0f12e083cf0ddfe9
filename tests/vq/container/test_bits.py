"""Bits of the index part and of the sign part, drawn by hand and then at random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.container import bits

from .samples import PROPERTY


def test_planes_by_hand():
    # lane      0  1  2         bit 0 of every value -> plane 0: lanes 0, 2    = 0b101
    # value     1  2  3         bit 1 of every value -> plane 1:    lanes 1, 2 = 0b110
    planes = bits.pack_planes(np.array([1, 2, 3], np.uint8), 2)
    assert planes.shape == (1, 128)
    assert planes[0, 0] == 0b101
    assert planes[0, 64] == 0b110
    assert np.count_nonzero(planes) == 2


def test_the_last_lane_is_the_last_bit_of_its_plane():
    values = np.zeros(512, np.uint16)
    values[511] = 1 << 15
    planes = bits.pack_planes(values, 16)
    assert planes[0].nonzero()[0].tolist() == [64 * 16 - 1]
    assert planes[0, -1] == 0x80


def test_signs_by_hand():
    # weight    -  +  +   -  -  +     bits 0, 3, 4 = 0b011001
    packed = bits.pack_signs(np.array([[1, 0, 0], [1, 1, 0]], bool), 3)
    assert packed.tolist() == [0b011001] + 63 * [0]


def test_parity_signs_by_hand():
    # weight    -  +  (-)   -  -  (+)     the sign in brackets makes the count even and is dropped:
    # bits      1  0        1  1          0b1101
    packed = bits.pack_signs(np.array([[1, 0, 1], [1, 1, 0]], bool), 2)
    assert packed.tolist() == [0b1101] + 63 * [0]
    assert bits.unpack_signs(packed, 2, 3)[:2].astype(int).tolist() == [[1, 0, 1], [1, 1, 0]]


@PROPERTY
@given(st.integers(1, 16), st.integers(0, 1500), st.integers(0, 2**32))
def test_planes_come_back(width: int, count: int, seed: int):
    values = np.random.default_rng(seed).integers(0, 1 << width, count)
    planes = bits.pack_planes(values, width)
    assert planes.shape == (-(-count // 512), 64 * width)
    back = bits.unpack_planes(planes, width)
    assert np.array_equal(back[:count], values)
    assert not back[count:].any()


@PROPERTY
@given(st.integers(1, 64), st.integers(1, 700), st.booleans(), st.integers(0, 2**32))
def test_signs_come_back(d: int, count: int, parity: bool, seed: int):
    check_signs(d, count, parity, seed)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4, 7, 8, 9, 16, 33, 64])
def test_signs_of_several_blocks(d: int, parity: bool):
    check_signs(d, 2 * bits._BLOCK * 512 // d + 77, parity, seed=d)


def check_signs(d: int, count: int, parity: bool, seed: int) -> None:
    negative = np.random.default_rng(seed).random((count, d)) < 0.5
    width = d - (parity and d > 1)
    if width < d:
        negative[:, -1] = negative[:, :-1].sum(axis=1) % 2
    packed = bits.pack_signs(negative, width)
    assert len(packed) == 64 * -(-count * width // 512)
    stored = np.packbits(negative[:, :width], bitorder="little")
    assert np.array_equal(packed[: len(stored)], stored)
    assert not packed[len(stored) :].any()
    back = bits.unpack_signs(packed, width, d)
    assert back.shape == (8 * len(packed) // width, d)
    assert back.dtype == np.bool_
    assert np.array_equal(back[:count], negative)
    assert not back[count:].any()


@pytest.mark.parametrize("width", [1, 3, 8, 9, 16])
def test_planes_of_several_blocks(width: int):
    values = np.random.default_rng(width).integers(0, 1 << width, 2 * bits._BLOCK * 512 + 600)
    planes = bits.pack_planes(values, width)
    grid = np.zeros((len(planes), 512), int)
    grid.reshape(-1)[: len(values)] = values
    for p in range(width):
        plane = np.packbits(grid >> p & 1, axis=1, bitorder="little")
        assert np.array_equal(planes[:, 64 * p : 64 * (p + 1)], plane)
    back = bits.unpack_planes(planes, width)
    assert back.dtype == (np.uint8 if width <= 8 else np.uint16)
    assert np.array_equal(back, grid.reshape(-1))
