"""DRAM by its text form."""

from pathlib import Path

import pytest

from hwsim.memory import Dram, absolute_memory, parse_memory
from tests.hwsim.memory.configs import DDR4_3200, ini
from tests.hwsim.memory.traffic import finish
from vq.errors import ConfigError


def described(spec: str) -> dict:
    memory = parse_memory(spec)
    assert isinstance(memory, Dram)
    return memory.describe()


def test_defaults() -> None:
    assert described("ddr4-2400") == {
        "name": "ddr4-2400",
        "channels": 1,
        "mapping": "rorabacobgch",
        "clock_mhz": 500.0,
        "controller_latency_ns": 30.0,
        "peak_gb_per_s": pytest.approx(19.2, rel=0.001),
        "peak_bytes_per_cycle": pytest.approx(38.4, rel=0.001),
        "arbitration": "oldest",
    }


@pytest.mark.parametrize("form", ["hbm2:{}", "dram:hbm2,{}"])
def test_settings(form: str) -> None:
    text = "mapping=rochrababgco,clock_mhz=333.3,controller_latency_ns=0,channels=8"
    facts = described(form.format(text))
    assert facts["mapping"] == "rochrababgco"
    assert facts["clock_mhz"] == 333.3
    assert facts["controller_latency_ns"] == 0
    assert facts["channels"] == 8 and facts["peak_gb_per_s"] == 128


@pytest.mark.parametrize("form", ["{}", "{}:", "dram:ini={}", "dram:{}"])
def test_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "My device.ini"
    path.write_text(ini(DDR4_3200))
    facts = described(form.format(path))
    assert facts["name"] == "My device" and facts["mapping"] == "rochrababgco"
    assert facts["arbitration"] == "rotating"
    comma = "," if form.startswith("dram") else ":" if not form.endswith(":") else ""
    assert described(form.format(path) + f"{comma}clock_mhz=1000")["clock_mhz"] == 1000


def test_a_path_for_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_memory("one.ini") == f"{tmp_path}/one.ini"
    assert absolute_memory("dram:ini=a/one.ini,channels=2") == f"{tmp_path}/a/one.ini:channels=2"
    for same in ("ideal:latency=3", "ddr4-2400", "dram:hbm2,channels=4"):
        assert absolute_memory(same) == same


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dram", r"^memory must be one of ddr4-2400, .*, or a file\.ini, not ''$"),
        ("dram:ddr4", r"not 'ddr4' \(did you mean 'ddr4-[23]\d00'\?\)$"),
        ("dram:ideal", r"^memory must be one of ddr4-2400, .*, not 'ideal'"),
        ("ddr4-24000", r"not 'ddr4-24000' \(did you mean 'ddr4-2400'\?\)$"),
        ("dram:ini=device.txt", r"ini must be a file that ends in \.ini, not 'device\.txt'$"),
        ("nowhere.ini", r"^memory file 'nowhere\.ini': must be a readable file, but No such"),
        ("hbm2:clock=3", r"not 'clock' \(did you mean 'clock_mhz'\?\)$"),
        ("hbm2:clock_mhz=0", r"^memory clock_mhz must be above 0, not 0$"),
        ("hbm2:clock_mhz=-1", r"- clock_mhz must be a number above 0, not '-1'"),
        ("hbm2:controller_latency_ns=x", r"- controller_latency_ns must be a number of nanosec"),
        ("hbm2:channels=3", r"^memory channels must be a power of two up to 64, not 3$"),
        ("hbm2:channels=0", r"^memory channels must be a power of two up to 64, not 0$"),
        ("hbm2:mapping=rorabgbacoro", r"^mapping must hold each of ro, .*, not 'rorabgbacoro'$"),
        ("hbm2:mapping=RO", r"- mapping must be fields such as rorabacobgch, not 'RO'$"),
        ("hbm2:latency=20", r"^memory 'hbm2:latency=20' has 1 problem:\n- setting must be one of"),
        ("hbm2:clock_mhz=1,clock_mhz=2", r"- clock_mhz must be given once$"),
    ],
)
def test_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_memory(spec)


def test_settings_count() -> None:
    """A faster accelerator waits more cycles, and so does a slower controller."""

    def latency(settings: str) -> int:
        memory = parse_memory(f"ddr4-2400:{settings}")
        assert isinstance(memory, Dram)
        memory.request(0, 0, 1, 16)
        return finish(memory)[0]

    slow, fast = latency("clock_mhz=100"), latency("clock_mhz=1000")
    assert 5 * slow < fast < 11 * slow
    assert latency("controller_latency_ns=130") == latency("controller_latency_ns=30") + 50
