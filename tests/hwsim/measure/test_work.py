"""What a file is run with: the same steps with data and without, and every value is looked at."""

from pathlib import Path

import numpy as np
import pytest

from hwsim.measure.work import Work, steps_of
from hwsim.program import assemble
from tests.hwsim.programs import SMALL, Tokens, network
from vq import SSVQ, Recipe
from vq.container import open_container


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe({"*": SSVQ(d=8, k=16, tile_outputs=SMALL.rows)})
    return network(tmp_path_factory.mktemp("tokens"), Tokens(), (9, 32), recipe)


@pytest.mark.parametrize("rows", [None, 3])
def test_values_in_memory(path: Path, rows: int | None) -> None:
    """As a network or layer by layer: one wrong byte of any value is seen."""
    with open_container(path) as container:
        work = Work.of(container, container, rows)
        names = [step.name for step in steps_of(container, container, rows)]
        assert names == [step.name for step in work.steps]
        program = assemble(work.steps, container, SMALL)
    image = program.image()
    work.write(program, image)
    for tensor, value in work.inputs.items():
        assert np.array_equal(program.places[tensor].read(image).reshape(value.shape), value)
    assert not work.is_in(program, image)
    for tensor, value in work.outputs.items():
        program.places[tensor].write(image, value)
    assert work.is_in(program, image)
    for tensor in work.outputs:
        at = program.places[tensor].address
        image[at] ^= 1
        assert not work.is_in(program, image)
        image[at] ^= 1


@pytest.mark.parametrize("rows", [None, 3])
def test_the_seed_chooses_the_inputs(path: Path, rows: int | None) -> None:
    with open_container(path) as container:
        works = [Work.of(container, container, rows, seed) for seed in (0, 0, 1)]
    same, again, other = (next(iter(work.inputs.values())) for work in works)
    assert np.array_equal(same, again) and not np.array_equal(same, other)
