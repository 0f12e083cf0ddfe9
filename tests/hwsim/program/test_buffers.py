"""Halves of the buffers in turn; what is there already is not loaded again."""

from hwsim.program.buffers import Buffers
from hwsim.program.memory import Region, Space
from hwsim.program.step import Addition, Numbers, Step, Tensor
from hwsim.program.strips import Strip
from rtl import AcceleratorConfig

#: Words of the two buffers differ in size and number: 16 bytes and 4096, 8 bytes and 2048.
CONFIG = AcceleratorConfig(bus_bits=128, rows=8, columns=16, scale_lanes=4, output_bytes=1 << 14)
X, Y, Z = (Tensor(name, 16, height=8, width=3) for name in "xyz")  # 48 bytes a row


def buffers() -> Buffers:
    space = Space(0)
    for tensor in (X, Y, Z):
        space.place(tensor, CONFIG)
    return Buffers(space, CONFIG)


def strip(source: Tensor, first: int, rows: int, addition: Addition | None = None) -> Strip:
    step = Step("s", source, Y, Numbers.same(16), addition=addition)
    return Strip(step, first, rows, first, rows)


def test_sources_take_halves_in_turn():
    found = buffers()
    first = found.source(strip(X, 0, 4))
    assert (first.word, first.slot, first.region) == (0, 0, Region(3, 0))
    assert first.fields == {"region": {"granules": 3, "address": 0}, "word": 0, "enable": 1}
    assert first.loaded_bytes == 192
    # Row 3 begins 16 bytes behind a granule: one word of 16 columns.
    second = found.source(strip(X, 3, 4))
    assert (second.word, second.slot, second.region) == (2048 + 1, 2048, Region(4, 2))
    assert found.source(strip(Z, 0, 8)).slot == 0


def test_what_is_held_is_not_loaded():
    found = buffers()
    held = found.source(strip(X, 3, 4))
    again = found.source(strip(X, 3, 4))
    assert (again.word, again.fields, again.loaded_bytes) == (held.word, {}, 0)
    assert found.source(strip(X, 3, 5)).slot == 2048


def test_targets_take_halves_in_turn_and_load_what_is_added():
    found = buffers()
    plain = found.target(strip(X, 0, 4))
    assert (plain.word, plain.fields, plain.loaded_bytes) == (0, {}, 0)
    added = found.target(strip(X, 4, 4, Addition(Z, 1, 1, 1, False)))
    assert (added.word, added.region) == (1024, Region(3, (2 * 384 + 4 * 48) // 64))
    assert found.target(strip(X, 0, 4)).word == 0
