"""What an instance cannot run is refused by name, with the limit."""

import re
from dataclasses import replace

import pytest

from hwsim.program.limits import require_runnable, step_problems
from hwsim.program.step import Numbers, Step, Tensor
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL
from vq.container import ConfigError, Layer, open_container


def step_of(tmp_path, layer: Layer, **fields) -> Step:
    with open_container(write(tmp_path / "x.vq.safetensors", [layer])) as container:
        entry = container.layers[0]
    g = entry.geometry
    return Step(g.name, Tensor("x", g.I), Tensor(g.name, g.O), Numbers.same(g.O), entry, **fields)


def test_what_fits_has_no_problem(tmp_path):
    layer = Maker().codes("fc", (16, 32), 4, 8, zeros=False, tile_outputs=8)
    step = step_of(tmp_path, layer)
    assert step_problems(step, SMALL) == []
    require_runnable([step], SMALL)


@pytest.mark.parametrize(
    ("layer", "fields", "message"),
    [
        (lambda make: make.ssvq("fc", (16, 32), 8, 16, tile_outputs=16), {},
         "tile_outputs must be 8, the rows of the array, not 16"),
        (lambda make: make.codes("fc", (16, 32), 4, 4, zeros=False, tile_outputs=8), {},
         "group must be a multiple of 8 (columns of the array) or the whole row, not 4"),
        (lambda make: make.ssvq("fc", (18, 32), 8, 16, tile_outputs=8), {"groups": 3},
         "outputs of a group must be a power of two below 8 or a multiple of it (rows of the "
         "array), not 6"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(tmp_path, layer, fields, message):
    assert step_problems(step_of(tmp_path, layer(Maker()), **fields), SMALL) == [message]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": (1, 256)}, "kernel must be at most 255, not 256"),
        ({"stride": (1 << 16, 1)}, "stride must be at most 65535, not 65536"),
        ({"source": Tensor("x", 8, height=1 << 16)},
         "height and width must be at most 65535, not 65536"),
        ({"target": Tensor("y", 1 << 16)}, "channels must be at most 65527, not 65536"),
        ({"target": Tensor("y", 8, width=65)},
         "one row of 65 positions with 8 inputs and 8 outputs must fit half of input_bytes = 8192 "
         "and of output_bytes = 8192, and accumulators = 64"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit(fields, message):
    step = Step("move", Tensor("x", 8), Tensor("y", 8), Numbers.same(8))
    assert message in step_problems(replace(step, **fields), SMALL)


def test_every_step_is_named_once():
    wide = Step("a", Tensor("x", 8), Tensor("y", 8), Numbers.same(8), kernel=(256, 1))
    steps = [wide, replace(wide, name="b"), wide]
    want = (
        "accelerator has 2 problems:\n- layer 'a': kernel must be at most 255, not 256\n"
        "- layer 'b': kernel must be at most 255, not 256"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(want)}$"):
        require_runnable(steps, SMALL)
