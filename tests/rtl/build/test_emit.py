"""Verilog output: names, reproducibility, atomic writing, lint."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from amaranth.back import verilog

import rtl
from hwsim.simulator.verilator import lint
from rtl import AcceleratorConfig, StreamerConfig, emit_verilog, write_verilog
from rtl.control.document import register_document
from rtl.program import PROGRAM_LAYER, RunStatus
from tests.hwsim.programs import SMALL, VECTOR
from tests.rtl.conftest import SMALLEST
from tests.rtl.fixed import fixed
from vq.container import OutputError, SimulationError

WAIVERS = Path(rtl.__file__).with_name("lint.vlt")


def test_ports_have_vendor_names(tmp_path: Path) -> None:
    path = write_verilog(StreamerConfig(bus_bits=64), tmp_path / "streamer.v")
    facts = json.loads((tmp_path / "streamer.json").read_text())
    source = path.read_text()
    assert facts["verilog_sha256"] == hashlib.sha256(source.encode()).hexdigest()
    assert facts["ports"]["m_axi_araddr"] == {"direction": "output", "bits": 40}
    assert facts["ports"]["m_axi_rdata"] == {"direction": "input", "bits": 64}
    assert facts["ports"]["weights_payload"] == {"direction": "output", "bits": 513}
    header = re.search(r"module signbook_streamer\((.*?)\);", source, re.DOTALL)
    assert header is not None
    assert {name.strip() for name in header[1].split(",")} == {*facts["ports"], "clk", "rst"}


def test_accelerator_comes_with_its_registers(tmp_path: Path) -> None:
    write_verilog(SMALL, tmp_path / "accelerator.v")
    facts = json.loads((tmp_path / "accelerator.json").read_text())
    assert facts["top"] == "signbook_accelerator"
    assert AcceleratorConfig.from_mapping(facts["config"]) == SMALL
    assert {"m_axi_wstrb", "s_axi_awaddr", "irq"} < set(facts["ports"])
    page = (tmp_path / "accelerator.md").read_text()
    assert page == register_document()
    assert all(f"`{status.name}`" in page for status in RunStatus)
    assert f"| {PROGRAM_LAYER.size - 1}:" in page


def test_documented_registers_are_those_of_the_hardware() -> None:
    page = Path(rtl.__file__).parent.parent / "docs" / "registers.md"
    assert page.read_text() == register_document(), "make it anew: see docs/accelerator.md"


def test_same_configuration_same_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated anew each time, by a process without a cache."""
    config, texts = StreamerConfig(bus_bits=64, index_bits_max=5), []
    for folder in "ab":
        monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / folder))
        texts.append(emit_verilog.__wrapped__(config))
    assert texts[0] == texts[1]
    assert str(Path(rtl.__file__).parent) not in texts[0]


def test_texts_are_kept_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr("rtl.build.emit._generated", lambda config: f"module m{config.bus_bits};")
    emit, texts = emit_verilog.__wrapped__, ["module m64;", "module m128;"]
    configs = [StreamerConfig(bus_bits=bits) for bits in (64, 128)]
    assert [emit(config) for config in configs] == texts
    monkeypatch.setattr("rtl.build.emit._generated", None)
    assert [emit(config) for config in configs] == texts
    monkeypatch.setattr("rtl.build.emit._generator", lambda: "changed sources")
    with pytest.raises(TypeError):
        emit(configs[0])


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("rtl.build.emit._generated", lambda _: "module m;")
    assert emit_verilog.__wrapped__(StreamerConfig()) == "module m;"


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "streamer.v"
    path.write_text("before")

    def fail(*_: object) -> str:
        raise RuntimeError("elaboration failed")

    monkeypatch.setattr("rtl.build.emit.emit_verilog", fail)
    with pytest.raises(RuntimeError):
        write_verilog(StreamerConfig(), path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["streamer.v"]


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must be writable"):
        write_verilog(StreamerConfig(bus_bits=64), tmp_path / "absent" / "streamer.v")


@pytest.mark.rtl
@pytest.mark.parametrize(
    "instance",
    [
        SMALLEST,
        SMALL,
        VECTOR,
        fixed(SMALL, (16, 8)),
        pytest.param(StreamerConfig(), marks=pytest.mark.slow),
        pytest.param(StreamerConfig(bus_bits=512), marks=pytest.mark.slow),
    ],
)
def test_lint_clean(instance: StreamerConfig | AcceleratorConfig) -> None:
    lint(instance, WAIVERS)


@pytest.mark.rtl
def test_lint_sees_what_is_not_waived(tmp_path: Path) -> None:
    """The waiver of one class is left out, so the check must fail."""
    fewer = tmp_path / "fewer.vlt"
    lines = WAIVERS.read_text().splitlines(keepends=True)
    fewer.write_text("".join(line for line in lines if "CASEINCOMPLETE" not in line))
    with pytest.raises(SimulationError, match="CASEINCOMPLETE"):
        lint(StreamerConfig(bus_bits=64), fewer)


def test_a_generator_that_fails_is_one_line(monkeypatch, tmp_path: Path) -> None:
    def fail(*_args, **_settings):
        raise verilog.YosysError("Traceback (most recent call last):\n  File x\nOSError: disk")

    emit_verilog.cache_clear()
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(verilog, "_convert_rtlil_text", fail)  # by yosys
    message = r"^yosys must turn signbook_streamer into Verilog, but ends with: OSError: disk$"
    with pytest.raises(SimulationError, match=message):
        emit_verilog(StreamerConfig(bus_bits=64))
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
