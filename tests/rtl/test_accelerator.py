"""The whole accelerator: programs in memory, outputs in memory, against numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.simulator.accelerator import Surroundings, run_program
from hwsim.simulator.traffic import Traffic
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, RunStatus
from tests.hwsim.containers import Maker
from tests.hwsim.programs import (
    SMALL,
    Layers,
    Net,
    Tokens,
    every_format,
    network,
    odd_rows,
    run_network,
)
from vq import SSVQ, Int4, Int8, Recipe

pytestmark = pytest.mark.rtl

SURROUNDINGS = {
    "free": Surroundings(),
    "slow": Surroundings(memory="ideal:bytes_per_cycle=3,latency=90"),
    "uneven": Surroundings(traffic=Traffic(seed=3, ar_idle=0.5, r_idle=0.4)),
    "reset": Surroundings(resets=(40, 230, 451), runs=2),
}


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("around", SURROUNDINGS)
def test_formats_back_to_back(tmp_path: Path, rows: int, around: str) -> None:
    """Every format after every kind of neighbour, one row and many."""
    layers = Layers(tmp_path, every_format(rows), rows)
    outcomes = layers.run(SURROUNDINGS[around])
    for outcome in outcomes:
        layers.require_exact(outcome)
        assert len(outcome.records) == len(layers.program.layers)
    cycles = {outcome.registers["CYCLES"] for outcome in outcomes}
    assert len(cycles) == 1  # a run leaves nothing behind that the next one would feel


@pytest.mark.parametrize(
    "memory",
    [
        "bytes_per_cycle=8,latency=3",
        "bytes_per_cycle=3,latency=90",
        "bytes_per_cycle=12.8,latency=7",
    ],
)
@pytest.mark.parametrize("ar_idle", [0.0, 0.5])
def test_player_gives_the_same_beats(tmp_path: Path, memory: str, ar_idle: float) -> None:
    """Read beats from Verilog and from Python, which share the schedule: equal in every count."""
    layers = Layers(tmp_path, every_format(3), 3)
    outcomes = []
    for played in (True, False):
        around = Surroundings(
            memory=f"ideal:{memory}", traffic=Traffic(seed=5, ar_idle=ar_idle), played=played
        )
        outcomes += layers.run(around)
    for outcome in outcomes:
        layers.require_exact(outcome)
    assert outcomes[0].registers == outcomes[1].registers
    assert outcomes[0].records == outcomes[1].records
    assert outcomes[0].image == outcomes[1].image


@pytest.mark.parametrize("rows", [1, 9])
def test_rows_of_no_whole_number_of_beats(tmp_path: Path, rows: int) -> None:
    layers = Layers(tmp_path, odd_rows(rows), rows)
    layers.require_exact(layers.run()[0])


@pytest.mark.parametrize("subvectors", [1, 63, 511, 512, 513, 1025])
def test_chunk_boundaries(tmp_path: Path, subvectors: int) -> None:
    make, tile = Maker(subvectors), {"tile_outputs": SMALL.rows}
    layers = Layers(
        tmp_path,
        [
            make.ssvq("ssvq", (subvectors, 4), 4, 16, **tile),
            make.ssvq("parity", (subvectors, 8), 8, 7, parity=True, **tile),
            make.vq("vq", (subvectors, 4), 4, 2, **tile),
            make.codes("codes", (subvectors, 1), 3, 8, zeros=False, **tile),
        ],
        rows=2,
    )
    layers.require_exact(layers.run()[0])


def test_layers_in_strips(tmp_path: Path) -> None:
    """More rows than accumulators, and more activations than a buffer."""
    layers = Layers(tmp_path, every_format(), rows=150)
    assert len(layers.program.layers) > 2 * len(layers.work)
    layers.require_exact(layers.run()[0])


RECIPES = {
    "ssvq": Recipe({"*": SSVQ(d=4, k=16, tile_outputs=8), "stem": Int8(tile_outputs=8)}),
    "mixed": Recipe(
        {
            "*": Int8(tile_outputs=8),
            "wide": SSVQ(d=8, k=16, axis="out", tile_outputs=8),
            "down": SSVQ(d=8, k=8, parity=True, tile_outputs=8),
            "fc1": Int4(group=8, zeros=True, tile_outputs=8),
        }
    ),
}


@pytest.mark.parametrize("recipe", ["ssvq", "mixed"])
def test_network(tmp_path: Path, recipe: str) -> None:
    path = network(tmp_path, Net(), (3, 13, 12), RECIPES[recipe])
    program, outcome = run_network(path)
    assert sum(layer.macs for layer in program.layers) > 0
    assert len(outcome.records) == len(program.layers)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(16, 8), (8, 16), (16, 16), (32, 32)])
def test_arrays_of_other_shapes(tmp_path: Path, rows: int, columns: int) -> None:
    """Tiles wider or higher than square, also where the tile makes an identity."""
    config = replace(SMALL, rows=rows, columns=columns)
    recipe = Recipe(
        {
            "*": Int8(tile_outputs=rows),
            "wide": SSVQ(d=8, k=16, axis="out", tile_outputs=rows),
            "down": SSVQ(d=8, k=8, tile_outputs=rows),
            "fc1": Int4(group=columns, tile_outputs=rows),
        }
    )
    path = network(tmp_path, Net(), (3, 13, 12), recipe)
    run_network(path, config)


def test_rows_through_linears(tmp_path: Path) -> None:
    recipe = Recipe({"*": SSVQ(d=8, k=16, tile_outputs=8), "gate": Int8(tile_outputs=8)})
    path = network(tmp_path, Tokens(), (9, 32), recipe)
    program, _ = run_network(path, surroundings=SURROUNDINGS["uneven"])
    # The input is loaded once for both linears that read it one after the other.
    loads = [layer.activation_bytes for layer in program.layers]
    assert loads[0] > 0 and loads[1] < loads[0] + 9 * 64


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    make, tile = Maker(2), {"tile_outputs": SMALL.rows}
    layers = [make.ssvq(name, (16, 32), 8, 16, **tile) for name in "abc"]
    return Layers(tmp_path_factory.mktemp("three"), layers, rows=3)


IMPATIENT = Surroundings(timeout_cycles=3000)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"version": 2}, RunStatus.VERSION),
        ({"weights__method": 9}, RunStatus.METHOD),
        ({"weights__log2_d": 5}, RunStatus.SUB_VECTOR),
        ({"weights__index_bits": 9}, RunStatus.INDEX_BITS),
        ({"weights__stream_granules": 1}, RunStatus.LENGTH),
        ({"weights__stream_address": 33}, RunStatus.ADDRESS),
        ({"weights__codebook_mode": 2, "weights__index_bits": 3}, RunStatus.LENGTH),
        ({"weights__codebook_granules": 0}, RunStatus.CODEBOOK),
        ({"walk__blocks": 0}, RunStatus.SHAPE),
        ({"walk__kernel_x": 3}, RunStatus.SHAPE),
        ({"walk__out_height": 7}, RunStatus.SHAPE),
        ({"walk__scale_tiles": 1}, RunStatus.SHAPE),
        ({"output__positions": 0}, RunStatus.SHAPE),
        ({"output__last_rows": 9}, RunStatus.SHAPE),
        ({"tile__outputs": 24}, RunStatus.SHAPE),
        ({"tile__log2_d": 5, "tile__columns": 1}, RunStatus.SHAPE),
        ({"tile__identity": 1}, RunStatus.SHAPE),
        ({"parameter_granules": 1}, RunStatus.SHAPE),
        ({"store__region__granules": 0}, RunStatus.SHAPE),
        ({"output__positions": 65, "walk__out_height": 65}, RunStatus.BUFFER),
        ({"load__input__word": 1023}, RunStatus.BUFFER),
        ({"store__word": 1023}, RunStatus.BUFFER),
        ({"load__input__region__address": 1 << 40}, RunStatus.ADDRESS),
        ({"store__record": 1 << 40}, RunStatus.ADDRESS),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.name,
)
def test_malformed_descriptors(three: Layers, fields: dict, status: RunStatus) -> None:
    """The run ends before the layer; those before it are complete."""
    image = three.corrupted(1, **fields)
    (outcome,) = run_program(SMALL, three.program, image, IMPATIENT)
    assert (outcome.status, outcome.failed_layer) == (status, 1)
    assert outcome.registers["LAYERS_DONE"] == 1
    first = three.work[0]
    found = three.program.places[first.step.target].read(outcome.image)
    assert np.array_equal(found, first.outputs)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_programs_end(three: Layers, seed: int) -> None:
    """Whatever the descriptors say, the run comes to an end and keeps the rules of the bus."""
    rng = np.random.default_rng(seed)
    image = three.image()
    for _ in range(4):
        number = rng.integers(0, 8 * PROGRAM_BYTES * 3 * 7 // 10)
        number = number // 1458 * 8 * PROGRAM_BYTES + number % 1458  # fields only, not the unused
        image[three.program.address + number // 8] ^= 1 << number % 8
    (outcome,) = run_program(SMALL, three.program, image, IMPATIENT)
    assert outcome.registers["STATUS"] & 0b11 == 0b10


def error_at(layers: Layers, address: int) -> Surroundings:
    return Surroundings(traffic=Traffic(error_granules=(address // 64,)), timeout_cycles=3000)


@pytest.mark.parametrize("what", ["descriptor", "parameters", "codebook", "weights", "activations"])
def test_read_errors(three: Layers, what: str) -> None:
    """All that has begun is finished, the status says what happened, and nothing hangs."""
    program, work = three.program, three.work[1]
    fields = int.from_bytes(
        program.image()[program.address + PROGRAM_BYTES :][:PROGRAM_BYTES], "little"
    )
    layer = PROGRAM_LAYER.from_bits(fields)
    address = {
        "descriptor": program.address + PROGRAM_BYTES,
        "parameters": layer.parameters * 64,
        "codebook": layer.weights.codebook_address,
        "weights": layer.weights.stream_address,
        "activations": program.places[work.step.source].address,
    }[what]
    (outcome,) = three.run(error_at(three, address))
    assert outcome.status == RunStatus.READ_ERROR
    assert outcome.failed_layer <= 1


@pytest.mark.parametrize("what", ["outputs", "record"])
def test_write_errors(three: Layers, what: str) -> None:
    program = three.program
    place = program.places[three.work[1].step.target]
    address = place.address if what == "outputs" else program.records + 64
    (outcome,) = three.run(error_at(three, address))
    assert outcome.status == RunStatus.WRITE_ERROR


def test_memory_that_never_answers(three: Layers) -> None:
    """Given up after TIMEOUT cycles; a reset makes it work again."""
    (outcome,) = three.run(
        Surroundings(memory="ideal:bytes_per_cycle=8,latency=100000", timeout_cycles=500)
    )
    assert outcome.status == RunStatus.STALLED
    assert 500 <= outcome.registers["CYCLES"] <= 520
