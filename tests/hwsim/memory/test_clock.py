"""One clock for an accelerator and its memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.memory import parse_memory
from hwsim.memory.clock import memory_at
from tests.hwsim.memory.configs import DDR4_3200, ini
from vq.container import ConfigError

TEXTS = [
    "ddr4-2400", "dram:ddr4-2400", "hbm2:channels=4", "dram:hbm2,channels=4",
    "lpddr4-3200:controller_latency_ns=3",
]  # fmt: skip


@given(st.sampled_from(TEXTS), st.sampled_from(["1", "500", "733.25"]))
def test_the_memory_learns_the_clock(text: str, clock: str) -> None:
    made = memory_at(text, clock)
    assert parse_memory(made).describe()["clock_mhz"] == float(clock)
    assert memory_at(made, f"{float(clock):.3f}") == made  # it says so already


def test_files(tmp_path) -> None:
    path = tmp_path / "device.ini"
    path.write_text(ini(DDR4_3200))
    for text in (str(path), f"{path}:channels=2", f"dram:ini={path}"):
        assert parse_memory(memory_at(text, "800")).describe()["clock_mhz"] == 800


def test_an_ideal_memory_counts_in_cycles() -> None:
    for text in ("ideal", "ideal:bytes_per_cycle=3,latency=9"):
        assert memory_at(text, "500") == text


@pytest.mark.parametrize(
    ("text", "clock", "message"),
    [
        ("ddr4-2400:clock_mhz=500", "400", r"clock_mhz must be 400, the accelerator's, not 500$"),
        ("dram:hbm2,clock_mhz=500", "501", r"clock_mhz must be 501, the accelerator's, not 500$"),
        ("ddr4-2400", "0", r"^clock_mhz must be a number above 0, not '0'$"),
        ("ddr4-2400", "-5", r"^clock_mhz must be a number above 0, not '-5'$"),
        ("ideal", "fast", r"^clock_mhz must be a number above 0, not 'fast'$"),
        ("ddr9", "500", r"^memory must be one of"),
    ],
)
def test_contradictions(text: str, clock: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        memory_at(text, clock)
