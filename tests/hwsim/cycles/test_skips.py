"""Ways to be fast give exactly what stepping cycle by cycle gives."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwsim.cycles import Prediction, Ways, predict, predict_descriptors
from hwsim.memory import parse_memory
from hwsim.program import Program, assemble, steps_of_layers
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker, write
from tests.hwsim.cycles.random_programs import random_memory, random_program
from tests.hwsim.programs import SMALL
from vq.container import Layer, open_container

CONFIG = AcceleratorConfig(input_bytes=1 << 18, output_bytes=1 << 18)
STEPPED = Ways(leaps=False, stretch_cycles=0)


def counts(prediction: Prediction) -> tuple:
    return prediction.registers, prediction.records


def program_of(folder: Path, layers: Sequence[Layer], rows: int) -> Program:
    """Layers alone, times some rows."""
    path = write(folder / "layers.vq.safetensors", layers)
    with open_container(path) as container:
        return assemble(steps_of_layers(container, rows), container, CONFIG)


def long_layers(seed: int) -> list[Layer]:
    """Layers of thousands of chunks, tiles and bursts, some of which come twice."""
    make, rng = Maker(seed), random.Random(seed)
    layers = []
    for number in range(4):
        shape = rng.choice([(192, 640), (640, 192), (208, 384), (384, 384), (100, 500)])
        method = rng.choice(["ssvq", "vq", "parity", "codes", "zeros", "int8"])
        for copy in "ab":
            name = f"{number}{copy}"
            if method in ("codes", "zeros"):
                bits = rng.choice([2, 3, 4])
                zeros = method == "zeros" and shape[0] % 16 == 0 and shape[1] % 8 == 0
                layers.append(make.codes(name, shape, bits, 64, zeros=zeros))
            elif method == "int8":
                layers.append(make.int8(name, shape))
            elif method == "vq":
                layers.append(make.vq(name, shape, 4, 64))
            else:
                layers.append(make.ssvq(name, shape, 8, 64, parity=method == "parity"))
    return layers


@pytest.mark.parametrize("rows", [1, 6, 100, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_long_layers(tmp_path: Path, seed: int, rows: int) -> None:
    program = program_of(tmp_path, long_layers(seed), rows)
    memory = random_memory(10 * seed + rows)
    stepped = predict(CONFIG, program, parse_memory(memory), ways=STEPPED)
    assert stepped.skipped_cycles == 0
    skipped = 0
    for ways in (Ways(stretch_cycles=0), Ways(leaps=False), Ways(), Ways(stretch_cycles=37)):
        found = predict(CONFIG, program, parse_memory(memory), ways=ways)
        assert counts(found) == counts(stepped), ways
        skipped += found.skipped_cycles
    assert rows < 100 or skipped > 0


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(tmp_path: Path, seed: int) -> None:
    """Short stretches, so that many of them come again."""
    program = random_program(tmp_path, 1000 + seed, SMALL)
    memory = random_memory(seed)
    stepped = predict(SMALL, program, parse_memory(memory), ways=STEPPED)
    for stretch in (1, 8, 30):
        found = predict(SMALL, program, parse_memory(memory), ways=Ways(stretch_cycles=stretch))
        assert counts(found) == counts(stepped), stretch


def test_a_program_that_comes_again_is_not_stepped(tmp_path: Path) -> None:
    """Blocks of a transformer: from the second one on all has been seen."""
    make = Maker(0)
    block = [make.ssvq(f"{n}", (256, 256), 8, 256) for n in range(4)]
    program = program_of(tmp_path, block, 1)
    memory = "ideal:bytes_per_cycle=16,latency=20"
    found = [
        predict_descriptors(
            CONFIG, program.address, program.descriptors * blocks, parse_memory(memory), ways=ways
        )
        for blocks, ways in ((20, STEPPED), (20, Ways()), (40, Ways()))
    ]
    assert counts(found[0]) == counts(found[1])
    stepped = [f.registers["CYCLES"] - f.skipped_cycles for f in found]
    assert stepped[2] < 1.1 * stepped[1] < 0.5 * stepped[0]
