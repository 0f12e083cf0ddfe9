"""A prediction beside counts: what may differ, and a table of what may not."""

from dataclasses import replace

import pytest

from hwsim.cycles import predict
from hwsim.measure.compare import require_prediction
from hwsim.memory import parse_memory
from hwsim.simulator.accelerator import Outcome
from rtl.program import RunStatus
from tests.hwsim.programs import SMALL, Layers, every_format
from vq.container import SimulationError

IDEAL, DRAM = "ideal:bytes_per_cycle=16,latency=20", "ddr4-2400"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory):
    return Layers(tmp_path_factory.mktemp("layers"), every_format(1), 1).program


def counted(program, memory: str) -> Outcome:
    """What the RTL would count, by the model."""
    p = predict(SMALL, program, parse_memory(memory))
    beats = p.beats_read, p.read_bursts, p.beats_written, p.write_bursts
    return Outcome(
        RunStatus.OK, 0, dict(p.registers), p.records, bytearray(), *beats, p.energy, p.wall_seconds
    )


def with_busy(outcome: Outcome, number: int, more: int) -> Outcome:
    records = list(outcome.records)
    records[number] = replace(records[number], busy_cycles=records[number].busy_cycles + more)
    return replace(outcome, records=records)


def test_a_cycle_counts_with_an_ideal_memory(program):
    memory, outcome = parse_memory(IDEAL), counted(program, IDEAL)
    prediction = predict(SMALL, program, parse_memory(IDEAL))
    require_prediction(program, outcome, prediction, memory)
    message = (
        r"^cycle model must count what the RTL counts:\nlayer +counter +RTL +model\n"
        r"3 ssvq ragged +busy_cycles +\d+ +\d+$"
    )
    with pytest.raises(SimulationError, match=message):
        require_prediction(program, with_busy(outcome, 3, 1), prediction, memory)


def test_a_dram_may_take_a_hundredth_more_but_reads_the_same(program):
    memory, outcome = parse_memory(DRAM), counted(program, DRAM)
    prediction = predict(SMALL, program, parse_memory(DRAM))
    most = outcome.registers["CYCLES"] // 100
    require_prediction(program, with_busy(outcome, 3, most), prediction, memory)
    with pytest.raises(SimulationError, match=r"3 ssvq ragged +busy_cycles"):
        require_prediction(program, with_busy(outcome, 3, most + 1), prediction, memory)
    outcome.registers["READ_BURSTS"] += 1
    with pytest.raises(SimulationError, match=r"\nrun +read_bursts +\d+ +\d+$"):
        require_prediction(program, outcome, prediction, memory)


def test_long_tables_are_cut(program):
    outcome = counted(program, IDEAL)
    other = predict(SMALL, program, parse_memory("ideal:bytes_per_cycle=2,latency=99"))
    with pytest.raises(SimulationError, match=r"\nand \d+ more$"):
        require_prediction(program, outcome, other, parse_memory(IDEAL))
