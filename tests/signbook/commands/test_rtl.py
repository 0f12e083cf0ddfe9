"""``signbook rtl``: Verilog, manifest, ROM, and options that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from rtl.build.cells import Mapped
from rtl.build.synthesis import Cells
from signbook.commands import rtl as command
from tests.rtl.build.libraries import library
from tests.signbook.runner import refused, run


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--weights-only", "--report"), "--report must stand without --weights-only"),
        (("--json", "report.json"), "--json must stand beside --report"),
        (("--liberty", "cells.lib"), "--liberty must stand beside --report"),
    ],
)
def test_rtl_options_that_do_not_fit(tmp_path, options, problem):
    done = run("rtl", "--out", tmp_path / "rtl", *options)
    assert done.returncode == 1 and problem in done.stderr
    assert not (tmp_path / "rtl").exists()


def test_rtl_writes_verilog_and_manifest(small, tmp_path):
    done = run("rtl", "--out", tmp_path / "rtl", "--accelerator", small, "--set", "bus_bits=64")
    assert done.returncode == 0, done.stderr
    verilog = Path(done.stdout.strip())
    assert "m_axi_araddr" in verilog.read_text()
    manifest = json.loads(verilog.with_suffix(".json").read_text())
    assert manifest["config"]["bus_bits"] == 64
    assert manifest["ports"]["m_axi_rdata"] == {"direction": "input", "bits": 64}


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        (["array=8x8"], {"rows": 8, "bus_bits": 64, "d_max": 8}),
        (["d_max=2"], {"d_min": 2, "d_max": 2}),
    ],
)
def test_settings_follow_those_that_are_given(tmp_path, monkeypatch, settings, used):
    made = []
    monkeypatch.setattr("rtl.write_verilog", lambda config, path: made.append(config))
    command.run(tmp_path / "rtl", settings=settings, weights_only="array=8x8" not in settings)
    assert made[0].to_mapping().items() >= used.items()


def test_rtl_with_a_codebook_in_rom(tmp_path, rom):
    done = run("rtl", "--out", tmp_path / "rtl", "--weights-only", "--rom", rom)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path(done.stdout.strip()).with_suffix(".json").read_text())
    assert manifest["config"]["codebook_rom"] == f"16x8:{np.load(rom).tobytes().hex()}"


def test_rtl_codebooks_that_do_not_fit(tmp_path, rom):
    settings = ("rtl", "--out", tmp_path / "rtl", "--rom", rom)
    assert "--rom must stand without" in refused(*settings, "--set", "codebook_rom=")
    assert "empty beside int8_only = 1" in refused(*settings, "--set", "int8_only=1")
    np.save(rom, np.zeros((16, 8)))
    assert "codebook must be [k, d] int8, not [16, 8] float64" in refused(*settings)
    rom.write_bytes(rom.read_bytes()[:100])
    assert "rom.npy: must be an array file of numpy" in refused(*settings)
    assert not (tmp_path / "rtl").exists()


@pytest.fixture
def synthesis(monkeypatch):
    """Stand-ins for the tools, which take hours on an accelerator."""
    monkeypatch.setattr("rtl.build.cells.map_cells", lambda *_: Mapped(80.0, 9, 4, 0.5, ()))
    monkeypatch.setattr("rtl.build.report.cells_of", lambda *_: Cells(lut4=10, ff=3))
    monkeypatch.setattr("rtl.build.report.clock_of", lambda *_: 62.5)


@pytest.mark.usefixtures("synthesis")
@pytest.mark.parametrize("cells", [False, True])
def test_rtl_reports_standard_cells_beside_those_of_an_fpga(small, tmp_path, cells):
    (tmp_path / "cells.lib").write_text(library())
    options = ["--report", "--json", tmp_path / "report.json"]
    options += ["--liberty", tmp_path / "cells.lib"] if cells else []
    done = run("rtl", "--out", tmp_path / "rtl", "--accelerator", small, *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == "signbook.synthesis/1"
    assert report["blocks"]["decoder"]["lut4"] == 10 and report["clock_mhz"]["core"] == 62.5
    assert "add 0.0% to the look-up tables of int8 alone" in done.stdout
    assert done.stdout.rstrip().endswith("clock of core_int8: 62.5 MHz")
    assert ("decoder add 0.0% to the cells of int8 alone" in done.stdout) is cells
    if cells:
        assert report["cells_um2"]["decoder"] == 80.0 and report["longest_path_ns"] == 0.5
        assert list(report["liberty"]) == ["cells.lib"]
    else:
        assert not {"cells_um2", "longest_path_ns", "liberty"} & set(report)


def test_rtl_refuses_damaged_libraries(small, tmp_path):
    (tmp_path / "cells.lib").write_text(library()[:-4])
    options = ("--report", "--liberty", tmp_path / "cells.lib")
    message = refused("rtl", "--out", tmp_path / "rtl", "--accelerator", small, *options)
    assert "cells.lib: must be a library of cells, but it is not one library from" in message
