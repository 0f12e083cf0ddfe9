"""Building and running: cache, missing tools, runs that cannot end."""

import shutil
import sys
from pathlib import Path

import pytest

from hwsim.simulator import toolchain
from hwsim.simulator import verilator as sim
from hwsim.simulator.streamer import Job
from hwsim.simulator.traffic import Traffic
from rtl import StreamerConfig
from tests.rtl.golden import Network, check
from vq.container import OutputError, SimulationError

CONFIG = StreamerConfig(bus_bits=64)


@pytest.mark.parametrize("tool", ["g++", "make", "perl"])
def test_missing_debian_tool(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **kw: None if name == tool else which(name))
    monkeypatch.delenv("CXX", raising=False)
    message = rf"- {tool.replace('+', '.')} must be installed: apt-get install "
    with pytest.raises(SimulationError, match=message):
        toolchain.find_toolchain()


def test_the_compiler_that_cxx_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert toolchain.find_toolchain().compiler == ()
    monkeypatch.setenv("CXX", "sh '-a b' g++")
    compiler = toolchain.find_toolchain().compiler
    assert compiler == ("CXX=sh '-a b' g++", "LINK=sh '-a b' g++")
    monkeypatch.setenv("CXX", "no-such -m64")
    with pytest.raises(SimulationError, match=r"- no-such must be on PATH: unset CXX, or set it t"):
        toolchain.find_toolchain()


def test_an_environment_that_make_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocotb_tools.config.libs_dir", str(tmp_path / "a b"))
    message = r"a b: must be a path of letters, .* install Signbook into an environment with such"
    with pytest.raises(SimulationError, match=message):
        toolchain.find_toolchain()


def test_all_missing_tools_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SimulationError, match=r"has 7 problems:") as caught:
        toolchain.find_toolchain()
    assert "pip install 'signbook[hw]'" in str(caught.value)


def test_missing_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("find_libpython.find_libpython", lambda: None)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(SimulationError, match=f"apt-get install libpython{version}"):
        toolchain.find_toolchain()


def test_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"must be writable.*set SIGNBOOK_CACHE"):
        sim.build(CONFIG)


@pytest.mark.rtl
def test_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(sim, "emit_verilog", lambda _: "module broken(;")
    with pytest.raises(SimulationError, match=r"verilator must succeed, not end with status 1:\n"):
        sim.build(CONFIG)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_builds_where_make_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache may have spaces, the temporary folder may not."""
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    monkeypatch.setattr(sim, "emit_verilog", lambda _: "module m;")
    monkeypatch.setattr(sim, "_tool", None)
    with pytest.raises(SimulationError, match=r"a b: must be a path of .*; set TMPDIR to such a f"):
        sim.build(CONFIG)


def test_what_all_builds_share_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for the tools: make compiles what is not there yet."""
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path / "it's a cache"))
    compiled: list[str] = []

    def tool(_: object, command: list[str], folder: Path) -> str:
        if command[0] == "make":
            made = ["verilated.o"]
            if command[-1] != "runtime":
                made += ["Vtop.o", "signbook_streamer"]
            for name in made:
                if not (folder / name).exists():
                    compiled.append(name)
                    (folder / name).write_text("")
        return ""

    monkeypatch.setattr(sim, "_tool", tool)
    for bits in (64, 128):
        monkeypatch.setattr(sim, "emit_verilog", lambda _, bits=bits: f"module m{bits};")
        assert sim.build(CONFIG).exists()
    assert compiled == ["verilated.o", *["Vtop.o", "signbook_streamer"] * 2]


@pytest.mark.rtl
def test_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = sim.build(CONFIG)

    def fail(*_: object) -> None:
        raise AssertionError("must be found in the cache")

    monkeypatch.setattr(sim, "_compile", fail)
    assert sim.build(CONFIG) == program


@pytest.mark.rtl
def test_run_that_stands_still(tmp_path: Path) -> None:
    """A memory that does not answer ends the run, it does not hang."""
    network = Network()
    network.add_int8(64)
    image = tmp_path / "image.bin"
    image.write_bytes(network.image)
    job = Job(image, network.descriptors, "ideal:latency=100000", idle_limit_cycles=500)
    with pytest.raises(SimulationError, match=r"must go on, not stand still .* 0 of 1 reports"):
        sim.run(CONFIG, job)


@pytest.mark.rtl
def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"simulation must end properly.*\n(.*\n)*.*absent"):
        sim.run(CONFIG, Job(tmp_path / "absent", [0]))


@pytest.mark.rtl
def test_progress(tmp_path: Path) -> None:
    network = Network()
    network.add_int8(200_000)
    image = tmp_path / "image.bin"
    image.write_bytes(network.image)
    seen: list[int] = []
    result = sim.run(CONFIG, Job(image, network.descriptors), progress=seen.append)
    check(network, result)
    assert seen == sorted(seen) and all(0 < beats <= result.bus.beats for beats in seen)


@pytest.mark.rtl
def test_traffic_is_reproducible(tmp_path: Path) -> None:
    network = Network()
    network.add(2000, 8, 4)
    traffic = Traffic(seed=9, r_idle=0.5, weights_idle=0.5)
    runs = [network.run(CONFIG, tmp_path, traffic=traffic) for _ in range(2)]
    assert runs[0].cycles == runs[1].cycles
    assert runs[0].layers[0].report == runs[1].layers[0].report
