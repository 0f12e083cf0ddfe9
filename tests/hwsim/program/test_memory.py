"""Places behind the file: whole granules, in the order of the first question."""

import numpy as np
import pytest

from hwsim.program.memory import Place, Region, Space, pixel_bytes
from hwsim.program.step import Tensor
from rtl import AcceleratorConfig

CONFIG = AcceleratorConfig(rows=8, columns=16, bus_bits=128)


@pytest.mark.parametrize(("channels", "nbytes"), [(1, 16), (16, 16), (17, 32)])
def test_a_position_is_whole_words_of_both_buffers(channels, nbytes):
    assert pixel_bytes(channels, CONFIG) == nbytes
    turned = AcceleratorConfig(rows=16, columns=8, bus_bits=128, d_max=8)
    assert pixel_bytes(channels, turned) == nbytes


def test_space_is_handed_out_in_granules():
    space = Space()
    assert (space.take_pages(4097), space.end) == (0, 8192)
    assert [space.take(1), space.take(65), space.take(0), space.end] == [8192, 8256, 8384, 8384]
    tensor = Tensor("t", 20, height=3)
    place = space.place(tensor, CONFIG)
    assert place is space.place(tensor, CONFIG)
    assert (place.address, place.pixel_bytes, place.row_bytes, place.nbytes) == (8384, 32, 32, 128)
    assert (space.end, space.places) == (8512, {tensor: place})


def test_rows_lie_in_regions():
    place = Place(Tensor("t", 16, height=9, width=3), 640, 16)  # 48 bytes in a row
    assert place.address_of(2) == 736
    assert place.region(0, 9) == Region(granules=7, address=10)
    assert place.region(1, 1) == Region(2, 10)  # 688 to 736, across 704
    assert place.region(4, 4) == Region(3, 13)
    assert (place.region(4, 4).nbytes, place.region(4, 4).fields) == (
        192,
        {"granules": 3, "address": 13},
    )


def test_values_are_read_as_they_were_written():
    tensor = Tensor("t", 5, height=2, width=3)
    place = Place(tensor, 64, 16)
    image = bytearray(b"\x55" * 256)
    value = np.random.default_rng(0).integers(-128, 128, (5, 2, 3)).astype(np.int8)
    place.write(image, value)
    assert np.array_equal(place.read(image), value)
    assert image[69:80] == bytes(11)  # channels that are not there
    assert image[:64] == b"\x55" * 64 and image[64 + 96 :] == b"\x55" * 96
