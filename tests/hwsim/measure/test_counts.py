"""From counts to a run of the document: layers, causes, bytes."""

from dataclasses import replace

import pytest

from hwsim.cycles import predict
from hwsim.measure.counts import run_of
from hwsim.memory import parse_memory
from rtl import RUN_CAUSES
from tests.hwsim.programs import SMALL, Layers, every_format
from vq.container import SimulationError


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory):
    return Layers(tmp_path_factory.mktemp("layers"), every_format(), 150).program


def test_strips_are_one_layer_and_the_end_belongs_to_the_last(program):
    counts = predict(SMALL, program, parse_memory("ideal:bytes_per_cycle=16,latency=20"))
    run = run_of(program, counts, SMALL, exact=None)
    assert len(run.layers) < len(program.layers)
    for layer in run.layers:
        strips = [i for i, p in enumerate(program.layers) if p.step.name == layer.name]
        records = [counts.records[i] for i in strips]
        drain = layer.cycles - sum(record.cycles for record in records)
        assert (drain > 0) == (layer is run.layers[-1])
        for cause in RUN_CAUSES:
            want = sum(record.stall_cycles[cause] for record in records)
            assert getattr(layer.stall_cycles, cause) == want + drain * (cause == "writeback")
        assert layer.m == 150
    assert (run.energy_pj, run.energy_by, run.bit_exact) == (None, None, None)


def test_energy_is_the_memorys(program):
    counts = predict(SMALL, program, parse_memory("ddr4-2400"))
    run = run_of(program, counts, SMALL, exact=True)
    assert run.bit_exact and run.energy_by is not None
    assert (run.energy_by.read, run.energy_pj) == (counts.energy.read_pj, counts.energy.total_pj)


@pytest.mark.parametrize(
    "channel", ["descriptors", "parameters", "codebooks", "activations", "weights"]
)
def test_all_bytes_must_have_been_read(program, channel):
    counts = predict(SMALL, program, parse_memory("ideal"))
    name = f"READ_{channel.upper()}"
    registers = counts.registers | {name: counts.registers[name] - 1}
    with pytest.raises(SimulationError, match=rf"^bytes of {channel} read must be \d+, not \d+$"):
        run_of(program, replace(counts, registers=registers), SMALL, exact=None)
