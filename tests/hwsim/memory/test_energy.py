"""The energy account of a run: each cause by itself, and their sum."""

import pytest

from hwsim.memory import Dram, EnergyTable, IdealMemory, load_device
from tests.hwsim.memory.devices import device
from tests.hwsim.memory.traffic import finish, read_all, stream

CYCLES_PER_US = 500


def test_nothing_but_time() -> None:
    """An idle memory takes standby current, and refreshes."""
    memory = Dram(load_device("ddr4-2400"))
    energy = memory.energy(100 * CYCLES_PER_US)
    assert energy is not None
    # 8 devices, 1.2 V, 34 mA, 100 us
    assert energy.background_pj == pytest.approx(8 * 1.2 * 34e-3 * 100e-6 * 1e12, rel=1e-4)
    assert memory.counts(0) == {"reads": 0, "writes": 0, "activates": 0, "refreshes": 12}
    # 8 devices, 1.2 V, 207 mA, 360 ns, 12 times
    assert energy.refresh_pj == pytest.approx(12 * 8 * 1.2 * 207e-3 * 433 * 833, rel=1e-4)
    assert (energy.activate_pj, energy.read_pj, energy.write_pj) == (0, 0, 0)
    assert energy.total_pj == energy.background_pj + energy.refresh_pj


def test_open_rows_take_more() -> None:
    memory, closed = (Dram(load_device("ddr4-2400")) for _ in range(2))
    memory.request(0, 0, 1, 64)
    finish(memory)
    used, idle = memory.energy(1000), closed.energy(1000)
    assert used is not None and idle is not None
    # From the activate to the end, 43 instead of 34 mA.
    activate = 39 * 0.833 / 1000
    more = 8 * 1.2 * 9e-3 * (1000 / CYCLES_PER_US - activate) * 1e6
    assert used.background_pj - idle.background_pj == pytest.approx(more, rel=0.01)


def test_causes_count_commands() -> None:
    memory = Dram(load_device("lpddr5-6400"))
    table = EnergyTable(memory.device)
    read_all(memory, stream(1000, 32))
    cycle = 10_000
    before = memory.energy(cycle)
    for beat in range(640):
        memory.write(cycle + beat, 1 << 20 | beat * 16, 16)
    energy, counts = memory.energy(40_000), memory.counts(40_000)
    assert energy is not None and before is not None
    assert counts["reads"] == 1000 and counts["writes"] == 320
    assert energy.read_pj == pytest.approx(1000 * float(table.read_pj))
    assert energy.write_pj == pytest.approx(320 * float(table.write_pj))
    assert energy.activate_pj == pytest.approx(counts["activates"] * float(table.activate_pj))
    since = energy - before
    assert since.read_pj == 0 and since.write_pj == energy.write_pj
    assert energy.to_mapping()["total_pj"] == pytest.approx(
        sum(value for name, value in energy.to_mapping().items() if name != "total_pj")
    )


def test_unknown() -> None:
    """A device without currents, and the ideal memory, know no energy."""
    assert Dram(device()).energy(100) is None
    assert IdealMemory().energy(100) is None
