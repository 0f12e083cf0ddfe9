"""The devices that come with Signbook: complete, consistent, and each value with its source."""

import dataclasses
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from hwsim.memory import Dram, EnergyTable, Rail, Structure, Timing, device_names, load_device
from hwsim.memory.checks import problems_of

FOLDER = Path(__file__).parents[3] / "hwsim" / "memory" / "data"
NAMES = ["ddr4-2400", "ddr4-3200", "hbm2", "lpddr4-3200", "lpddr5-6400"]


def test_names() -> None:
    assert device_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_value_names_its_source(name: str) -> None:
    data = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    assert set(data) == {"title", "mapping", "sources", "structure", "timing", "rails"}
    tables = [(Structure, data["structure"]), (Timing, data["timing"])]
    tables += [(Rail, rail) for rail in data["rails"]]
    used = set()
    for kind, table in tables:
        fields = {field.name for field in dataclasses.fields(kind)}
        optional = {"tDQSCK", "tDQSS", "tPPD"}
        assert fields - optional <= set(table) <= fields
        for value, source in table.values():
            assert isinstance(value, int | float)
            used.add(source)
    assert used | {key for key in data["sources"] if key == "ramulator_rtw"} == set(data["sources"])


@pytest.mark.parametrize("name", NAMES)
def test_consistent(name: str) -> None:
    device = load_device(name)
    assert problems_of(device) == {}
    assert device.timing.tCK_ps == Fraction(int(device.timing.tCK_ps))
    described = Dram(device).describe()
    assert described["name"] == name and described["mapping"] == device.mapping


@pytest.mark.parametrize(
    ("name", "peak", "gigabytes"),
    [
        ("ddr4-2400", 19.2, 8),
        ("ddr4-3200", 25.6, 8),
        ("lpddr4-3200", 6.4, 1),
        ("lpddr5-6400", 12.8, 1),
        ("hbm2", 32.0, 1),
    ],
)
def test_size_and_peak(name: str, peak: float, gigabytes: int) -> None:
    device = load_device(name)
    assert float(device.peak_bytes_per_ns) == pytest.approx(peak, rel=0.001)
    s = device.structure
    banks = s.channels * s.ranks * s.bank_groups * s.banks_per_group
    assert banks * s.rows * s.row_bytes == gigabytes << 30


@pytest.mark.parametrize(
    ("name", "read", "write", "activate_pj"),
    [
        # V (IDD4R - IDD3N) burst tCK devices / bits, and the same for writes and activates:
        # 1.2 * 92 * 4 * 0.833 * 8 / 512;  1.2 * (48 * 55 - 43 * 39 - 34 * 16) * 0.833 * 8
        ("ddr4-2400", 5.748, 5.00, 3350),
        # 1.2 * 116 * 4 * 0.625 * 8 / 512
        ("ddr4-3200", 5.438, 4.594, 4200),
        # 1.1 * (245 + 149.25) * 8 * 0.625 / 256;  (1.8 * 128.5 + 1.1 * 1542) * 0.625
        ("lpddr4-3200", 8.470, 5.032, 1205),
        ("lpddr5-6400", 3.754, 2.175, 1138),
        # 1.2 * 167.5 * 2 / 256
        ("hbm2", 1.570, 2.086, 413),
    ],
)
def test_energy_of_an_access(name: str, read: float, write: float, activate_pj: float) -> None:
    device = load_device(name)
    table, bits = EnergyTable(device), 8 * device.structure.column_bytes
    assert float(table.read_pj) / bits == pytest.approx(read, rel=0.002)
    assert float(table.write_pj) / bits == pytest.approx(write, rel=0.002)
    assert float(table.activate_pj) == pytest.approx(activate_pj, rel=0.01)
