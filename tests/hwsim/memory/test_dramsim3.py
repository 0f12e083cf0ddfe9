"""What DRAMsim3 measured, on the same configurations and traffic.

The reference numbers were recorded with DRAMsim3 at commit 29817593: reads as fast as its front end
takes them, 150 to 200 thousand clocks, GB/s as it reported them with rounded clock periods.
"""

from pathlib import Path

import pytest

from hwsim.memory import Command, Device, Dram, EnergyTable, read_ini
from tests.hwsim.memory.configs import DDR4_3200, HBM2, LPDDR4_2400, ini
from tests.hwsim.memory.page import table
from tests.hwsim.memory.traffic import finish, read_all, scattered, stream, two_streams

COLUMNS = 12_000
#: By traffic: one stream, two streams that take turns after so many bytes, scattered.
DDR4 = {
    "rochrababgco": {0: 17.0, 64: 10.2, 1024: 10.4, 4096: 13.0, 16384: 16.8, -1: 21.0},
    "rocorababgch": {0: 24.6, 64: 24.5, 1024: 24.2, 4096: 24.4, 16384: 24.8, -1: 21.0},
}
LPDDR4 = {0: 18.6, 256: 16.1, 1024: 14.4, 4096: 17.8, 16384: 18.3, -1: 19.1}


def device_of(sections: dict, folder: Path) -> Device:
    path = folder / "device.ini"
    path.write_text(ini(sections))
    return read_ini(path)


def addresses(kind: int, columns: int, size: int) -> list[int]:
    if kind < 0:
        return scattered(columns, size)
    return two_streams(columns, size, kind) if kind else stream(columns, size)


def measure(device: Device, mapping: str, kind: int) -> tuple[float, Dram]:
    """GB/s of saturating reads, up to where the last ones begin to run out."""
    size = device.structure.column_bytes
    trace: list[list[Command]] = [[]]
    memory = Dram(device, mapping=mapping, trace=trace)
    read_all(memory, addresses(kind, COLUMNS, size))
    clocks = [command.clock for command in trace[0] if command.name == "RD"]
    steady = COLUMNS * 9 // 10
    duration_ns = float((clocks[steady] - clocks[0]) * device.timing.tCK_ps / 1000)
    return steady * size / duration_ns, memory


def require_page(row: str, column: int, given: float, recorded: float) -> None:
    """The page says the same."""
    ours, theirs = table("dramsim3")[row][column].split(" / ")
    assert float(theirs) == recorded
    assert float(ours) == pytest.approx(given, abs=0.051)


@pytest.mark.parametrize("kind", DDR4["rochrababgco"])
@pytest.mark.parametrize("mapping", DDR4)
def test_ddr4(mapping: str, kind: int, tmp_path: Path) -> None:
    given, _ = measure(device_of(DDR4_3200, tmp_path), mapping, kind)
    assert given == pytest.approx(DDR4[mapping][kind], rel=0.03)
    require_page(f"DDR4 {mapping}", list(DDR4[mapping]).index(kind), given, DDR4[mapping][kind])


@pytest.mark.parametrize("kind", LPDDR4)
def test_lpddr4(kind: int, tmp_path: Path) -> None:
    given, _ = measure(device_of(LPDDR4_2400, tmp_path), "rochrababgco", kind)
    assert given == pytest.approx(LPDDR4[kind], rel=0.05)
    require_page("LPDDR4 rochrababgco", list(LPDDR4).index(kind), given, LPDDR4[kind])


def test_row_hits_and_activates(tmp_path: Path) -> None:
    """Two streams through interleaved banks: hits fall from 98 % to 55 %, activates cost 25 times
    as much (0.24 and 5.9, which the recorded runs gave in V mA clocks per bit)."""
    device = device_of(DDR4_3200, tmp_path)
    clock_ns = float(device.timing.tCK_ps) / 1000
    for kind, hits, cost in ((0, 0.98, 0.24), (64, 0.55, 5.9)):
        _, memory = measure(device, "rocorababgch", kind)
        counts = memory.counts(0)
        share = counts["activates"] / counts["reads"]
        assert 1 - share == pytest.approx(hits, abs=0.01 if kind == 0 else 0.05)
        activate = float(EnergyTable(device).activate_pj) / clock_ns
        assert share * activate / 512 == pytest.approx(cost, rel=0.1)


def test_hbm2_by_its_channels(tmp_path: Path) -> None:
    """A channel gives 32 GB/s but for refresh; one column per clock is 64 GB/s at most, which two
    channels or more can give."""
    device = device_of(HBM2, tmp_path)
    assert float(device.peak_bytes_per_ns) == 8 * 32
    for mapping, expected in (("chrorabgbaco", 32 * (1 - 294 / 3900)), ("rorabgbacoch", 64)):
        memory = Dram(device, mapping=mapping, clock_mhz=1000, controller_latency_ns=0)
        for number in range(COLUMNS):
            memory.request(number, number * 64, 1, 64)
        assert COLUMNS * 64 / finish(memory)[-1] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("sections", "clocks", "recorded"),
    [(DDR4_3200, 22 + 22 + 4, 78), (LPDDR4_2400, 15 + 17 + 8, 62), (HBM2, 14 + 14 + 2, 53)],
)
def test_latency(sections: dict, clocks: int, recorded: int, tmp_path: Path) -> None:
    """Reads far apart in a closed bank take tRCD + CL + burst. DRAMsim3's averages are higher by a
    precharge of the row that was open, a refresh now and then, and clocks of its controller."""
    device = device_of(sections, tmp_path)
    trace = [[] for _ in range(device.structure.channels)]
    memory = Dram(device, clock_mhz=1000, controller_latency_ns=0, trace=trace)
    memory.request(0, 0, 1, device.structure.column_bytes)
    finish(memory)
    act, read = trace[0]
    assert read.clock - act.clock + device.timing.CL + device.timing.burst == clocks
    assert clocks < recorded < clocks + device.timing.tRP + 20
