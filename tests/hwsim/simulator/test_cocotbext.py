"""The bus against somebody else's AXI slave."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwsim.simulator.verilator import simulate_job
from tests.hwsim.programs import SMALL, Layers, every_format

pytestmark = pytest.mark.rtl


def test_independent_slave_agrees(tmp_path: Path) -> None:
    """Every format from the memory of cocotbext-axi, to it, with pauses."""
    pytest.importorskip("cocotbext.axi", reason="cocotbext-axi is not installed")
    layers = Layers(tmp_path, every_format(), rows=3)
    path = tmp_path / "image"
    path.write_bytes(layers.image())
    job = {
        "image": str(path),
        "program": layers.program.address,
        "layers": len(layers.program.layers),
    }
    testbench = "tests.hwsim.simulator.cocotbext_testbench"
    with simulate_job(SMALL, testbench, json.dumps(job), None) as done:
        assert json.loads((done.folder / "result.json").read_text())["status"] == 0b10
        image = bytearray((done.folder / "image.bin").read_bytes())
    for work in layers.work:
        found = layers.program.places[work.step.target].read(image)
        assert np.array_equal(found, work.outputs), work.step.name
