"""Books of a run: what counters must say of each other and of what the memory saw."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest

import hwsim.simulator.accelerator
from hwsim.simulator.verilator import MEMORY_FILE
from rtl.program import RECORD
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, Layers
from vq.container import GRANULE_BYTES, SimulationError

pytestmark = pytest.mark.rtl


def register(name):
    def change(layers, run, memory):
        run["registers"][name] += 1

    return change


def seen(name):
    def change(layers, run, memory):
        run[name] += 1

    return change


def record(name):
    def change(layers, run, memory):
        at = layers.program.records
        value = int.from_bytes(memory[at : at + GRANULE_BYTES], "little")
        value ^= 1 << RECORD[name].offset
        memory[at : at + GRANULE_BYTES] = value.to_bytes(GRANULE_BYTES, "little")

    return change


FALSE = {
    "cycle": (register("CYCLES"), "busy and stall cycles must sum to"),
    "stall": (register("DECODER_CYCLES"), "busy and stall cycles must sum to"),
    "beat counted": (register("READ_WEIGHTS"), "beats read by channel must sum to"),
    "beat seen": (seen("beats_read"), "beats read by channel must sum to"),
    "read burst": (seen("read_bursts"), "read bursts must sum to"),
    "written": (seen("beats_written"), "beats written must sum to"),
    "write burst": (register("WRITE_BURSTS"), "write bursts must sum to"),
    "late": (lambda layers, run, memory: run.update(moved_after=True), "nothing may move"),
    "layer": (record("layer"), "record 0 must be of layer 0"),
    "layer's stall": (record("memory_cycles"), "record 0: busy and stall cycles must sum"),
}


@pytest.mark.parametrize("what", [None, *FALSE])
def test_books_are_held_against_each_other(tmp_path: Path, monkeypatch, what) -> None:
    """A real run; then one number of it is false, and the run is refused for that."""
    layers = Layers(tmp_path, [Maker(0).ssvq("ssvq", (8, 16), 4, 16, tile_outputs=SMALL.rows)], 1)
    change, message = FALSE.get(what, (None, ""))
    simulate_job = hwsim.simulator.accelerator.simulate_job

    @contextmanager
    def falsified(*arguments, **options):
        with simulate_job(*arguments, **options) as done:
            result, image = done.folder / "result.json", done.folder / MEMORY_FILE
            facts, memory = json.loads(result.read_text()), bytearray(image.read_bytes())
            if change:
                change(layers, facts["runs"][0], memory)
            result.write_text(json.dumps(facts))
            image.write_bytes(memory)
            yield done

    monkeypatch.setattr(hwsim.simulator.accelerator, "simulate_job", falsified)
    if what is None:
        layers.require_exact(layers.run()[0])
        return
    with pytest.raises(SimulationError, match=message):
        layers.run()
