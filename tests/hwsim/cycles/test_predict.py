"""The gate: the model counts what the RTL counts, in every counter of every layer."""

from pathlib import Path

import pytest

from hwsim.cycles import predict
from hwsim.measure.compare import require_prediction
from hwsim.memory import parse_memory
from hwsim.program import Program
from hwsim.simulator.accelerator import Outcome, Surroundings, run_program
from rtl import AcceleratorConfig
from rtl.program import RunStatus
from tests.hwsim.cycles.random_programs import random_memory, random_program
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
from tests.rtl.fixed import fixed
from vq import SSVQ, Int4, Int8, Recipe

pytestmark = pytest.mark.rtl

MEMORIES = [
    "ideal:bytes_per_cycle=16,latency=20",
    "ideal:bytes_per_cycle=3,latency=90",
    "ideal:bytes_per_cycle=12.8,latency=7",
]
TIGHT = AcceleratorConfig(
    bus_bits=64,
    rows=8,
    columns=16,
    d_min=2,
    d_max=16,
    index_bits_max=10,
    scale_lanes=1,
    accumulators=40,
    input_bytes=1 << 12,
    output_bytes=1 << 12,
    burst_bytes=64,
    outstanding_bursts=2,
    fifo_bytes=128,
    layers_in_flight=2,
)
WIDE = AcceleratorConfig(
    bus_bits=256,
    rows=32,
    columns=8,
    d_max=8,
    scale_lanes=32,
    accumulators=128,
    input_bytes=1 << 14,
    output_bytes=1 << 14,
)
INT8 = AcceleratorConfig(
    rows=8,
    columns=32,
    int8_only=1,
    scale_lanes=2,
    accumulators=64,
    input_bytes=1 << 14,
    output_bytes=1 << 13,
)
OTHERS = {"tight": TIGHT, "wide": WIDE}
#: Instances that only the slow tests build.
FURTHER = {"default": AcceleratorConfig(), "int8": INT8}


def require_equal(config: AcceleratorConfig, program: Program, memory: str) -> Outcome:
    """Run a program in RTL and hold every counter against the model."""
    (outcome,) = run_program(config, program, program.image(), Surroundings(memory=memory))
    assert outcome.status == RunStatus.OK
    predicted = predict(config, program, parse_memory(memory))
    require_prediction(program, outcome, predicted, parse_memory(memory))
    assert len(predicted.records) == len(outcome.records) == len(program.layers)
    assert all(outcome.registers[name] == count for name, count in predicted.registers.items())
    return outcome


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(tmp_path: Path, seed: int) -> None:
    require_equal(SMALL, random_program(tmp_path, seed, SMALL), random_memory(seed))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("rows", [1, 64])
def test_formats_back_to_back(tmp_path: Path, rows: int, memory: str) -> None:
    require_equal(SMALL, Layers(tmp_path, every_format(rows), rows).program, memory)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("rows", [1, 20])
def test_odd_rows(tmp_path: Path, rows: int, memory: str) -> None:
    require_equal(SMALL, Layers(tmp_path, odd_rows(rows), rows).program, memory)


def test_layers_in_strips(tmp_path: Path) -> None:
    require_equal(SMALL, Layers(tmp_path, every_format(), 150).program, MEMORIES[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("memory", ["ddr4-2400", "lpddr4-3200", "hbm2"])
def test_dram(tmp_path: Path, memory: str, seed: int) -> None:
    """Asked as the slave of the simulation asks, so to the cycle."""
    program = random_program(tmp_path, 300 + seed, SMALL)
    outcome = require_equal(SMALL, program, memory)
    assert predict(SMALL, program, parse_memory(memory)).records == outcome.records


MIXED = Recipe(
    {
        "*": Int8(tile_outputs=8),
        "wide": SSVQ(d=8, k=16, axis="out", tile_outputs=8),
        "down": SSVQ(d=8, k=8, parity=True, tile_outputs=8),
        "fc1": Int4(group=8, zeros=True, tile_outputs=8),
    }
)


@pytest.mark.parametrize(
    ("model", "shape", "recipe"),
    [
        (Net, (3, 13, 12), MIXED),
        (Tokens, (9, 32), Recipe({"*": SSVQ(d=8, k=16, tile_outputs=8)})),
    ],
    ids=["convolutions", "rows"],
)
def test_networks(tmp_path: Path, model: type, shape: tuple[int, ...], recipe: Recipe) -> None:
    """Real data in memory: they change nothing."""
    program, outcome = run_network(network(tmp_path, model(), shape, recipe))
    memory = parse_memory(Surroundings().memory)
    require_prediction(program, outcome, predict(SMALL, program, memory), memory)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", OTHERS)
def test_other_instances(tmp_path: Path, name: str, seed: int) -> None:
    """Other buses and arrays: every width of every gearbox, one lane and all, small bursts."""
    program = random_program(tmp_path, 100 + seed, OTHERS[name])
    require_equal(OTHERS[name], program, random_memory(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 16))
@pytest.mark.parametrize("name", [*OTHERS, *FURTHER])
def test_further_instances(tmp_path: Path, name: str, seed: int) -> None:
    config = (OTHERS | FURTHER)[name]
    require_equal(config, random_program(tmp_path, 100 + seed, config), random_memory(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_codebook_in_rom(tmp_path: Path, seed: int) -> None:
    config = fixed(SMALL, (16, 8))
    require_equal(config, random_program(tmp_path, 200 + seed, config), random_memory(seed))
