"""Fields of descriptors, by hand."""

from hwsim.program.fields import output_fields, tile_fields, walk_fields
from hwsim.program.memory import Place
from hwsim.program.step import Addition, Numbers, Step, Tensor
from hwsim.program.strips import Strip
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker, write
from vq.container import Layer, open_container

#: Rows and columns differ, so that no word is taken for the other.
CONFIG = AcceleratorConfig(bus_bits=128, rows=8, columns=16, scale_lanes=4)


def entry_of(tmp_path, layer: Layer):
    with open_container(write(tmp_path / "x.vq.safetensors", [layer])) as container:
        return container.layers[0]


def linear(tmp_path, layer: Layer) -> Step:
    entry = entry_of(tmp_path, layer)
    g = entry.geometry
    return Step("fc", Tensor("x", g.I), Tensor("y", g.O), Numbers.same(g.O), entry)


def test_tiles(tmp_path):
    make = Maker()
    step = linear(tmp_path, make.ssvq("fc", (20, 36), 8, 16, tile_outputs=8))
    assert tile_fields(step, CONFIG) == {"log2_d": 3, "outputs": 20, "columns": 5}
    step = linear(tmp_path, make.ssvq("fc", (24, 40), 8, 16, axis="out", tile_outputs=8))
    assert tile_fields(step, CONFIG) == {"outputs": 24, "columns": 40}
    moved = Step("move", Tensor("x", 20), Tensor("y", 20), Numbers.same(20))
    assert tile_fields(moved, CONFIG) == {"identity": 1, "tiles": 3}
    tall = AcceleratorConfig(bus_bits=128, rows=32, columns=8, d_max=8)
    assert tile_fields(moved, tall) == {"identity": 1, "tiles": 4}


def test_a_window_in_a_strip():
    """Rows 4 to 7 of a padded 3x3 with stride 2, of which the buffer has rows 7 to 15."""
    source, target = Tensor("x", 20, 17, 6), Tensor("y", 24, 9, 3)
    step = Step(
        "conv", source, target, Numbers.same(24), kernel=(3, 3), stride=(2, 2), before=(1, 1)
    )
    strip = Strip(step, first_row=4, rows=4, first_input_row=7, input_rows=9)
    fields = walk_fields(strip, CONFIG, source=Place(source, 0, 32), first_word=100)
    wanted = {
        "blocks": 3, "channels": 20, "out_height": 4, "out_width": 3, "in_height": 9,
        "in_width": 6, "first_y": 0, "first_x": -1,
        "first_word": 98,  # a pixel is two words of 16
        "stride_y": 2, "stride_x": 2, "stride_y_words": 24, "stride_x_words": 4,
        "kernel_y": 3, "kernel_x": 3, "dilation_y_words": 12, "dilation_x_words": 2,
        "pool": 0, "scale_tiles": 0,
    }  # fmt: skip
    assert {name: fields[name] for name in wanted} == wanted
    first = Strip(step, first_row=0, rows=4, first_input_row=0, input_rows=8)
    at_top = walk_fields(first, CONFIG, source=Place(source, 0, 32), first_word=100)
    assert (at_top["first_y"], at_top["first_word"]) == (-1, 100 - 12 - 2)


def test_groups_of_channels(tmp_path):
    def fields(shape, groups):
        entry = entry_of(tmp_path, Maker().int8("conv", shape))
        channels = shape[1] * groups
        x, y = Tensor("x", channels), Tensor("y", shape[0])
        step = Step("conv", x, y, Numbers.same(shape[0]), entry, groups=groups)
        found = walk_fields(Strip(step, 0, 1, 0, 1), CONFIG, source=Place(x, 0, 16), first_word=0)
        names = ("group_blocks", "group_inputs", "block_groups", "log2_group")
        return tuple(found[name] for name in names)

    assert fields((24, 16), 1) == (3, 16, 1, 3)
    assert fields((16, 1), 16) == (1, 1, 8, 0)  # depthwise: eight groups in a block
    assert fields((16, 2), 4) == (1, 2, 2, 2)
    assert fields((32, 8), 2) == (2, 8, 1, 3)


def test_pooling_walks_over_the_source():
    source = Tensor("x", 8, 5, 7)
    step = Step("pool", source, Tensor("y", 8), Numbers.same(8), pool=True)
    found = walk_fields(Strip(step, 0, 1, 0, 5), CONFIG, source=Place(source, 0, 16), first_word=0)
    assert (found["pool"], found["out_height"], found["out_width"]) == (1, 5, 7)


def test_outputs_and_what_is_added():
    target = Tensor("y", 20, 4, 3)
    step = Step("s", Tensor("x", 20, 4, 3), target, Numbers.same(20))
    plain = output_fields(Strip(step, 0, 2, 0, 2), CONFIG, first_word=40)
    assert plain == {
        "blocks": 3, "positions": 6, "pixel_words": 4, "last_rows": 4, "first_word": 40,
        "addition": {},
    }  # fmt: skip
    added = Step("s", step.source, target, step.numbers, addition=Addition(target, 3, -4, 5, True))
    fields = output_fields(Strip(added, 0, 2, 0, 2), CONFIG, first_word=0)["addition"]
    assert fields == {"own": 3, "other": -4, "shift": 5, "relu": 1, "enable": 1}
