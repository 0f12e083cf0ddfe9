"""What can be worked out by hand: latency without load, bandwidth between refreshes."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest

from hwsim.memory import Command, Device, Dram, device_names, load_device
from tests.hwsim.memory.traffic import finish, read_all, stream

#: Unloaded latency (precharge, activate, read; ns) and what refresh leaves of the peak (GB/s per
#: channel), by the formulas of Ramulator 2.1's latency and throughput tests.
PUBLISHED = {
    "ddr4-2400": (40.0, 18.23),
    "ddr4-3200": (41.25, 24.30),
    "lpddr4-3200": (53.75, None),
    "lpddr5-6400": (58.75, 11.96),
    "hbm2": (42.0, 14.8),
}


def cycles(device: Device, clocks: int, *, clock_mhz: int, latency_ns: int) -> int:
    """From acceptance to the first cycle in which data can be taken, by exact arithmetic."""
    cycle, clock = Fraction(1_000_000, clock_mhz), device.timing.tCK_ps
    arrival = ceil((cycle + latency_ns * 1000) / clock)
    return ceil((arrival + clocks) * clock / cycle)


@pytest.mark.parametrize("clock_mhz", [100, 500, 1333])
@pytest.mark.parametrize("name", device_names())
def test_latency_without_load(name: str, clock_mhz: int) -> None:
    device, timing = load_device(name), load_device(name).timing
    read = timing.CL + timing.tDQSCK + timing.burst
    setting = {"clock_mhz": clock_mhz, "latency_ns": 25}
    row_bytes = device.structure.row_bytes * device.structure.banks_per_group
    row_bytes *= device.structure.bank_groups * device.structure.channels
    memory = Dram(device, clock_mhz=clock_mhz, controller_latency_ns=25)
    memory.request(0, 0, 1, 16)
    assert finish(memory) == [cycles(device, timing.tRCDRD + read, **setting)]
    # The same row, another row of the bank: each from a cycle in which all is quiet, and before
    # the first refresh.
    for address, clocks in ((0, read), (row_bytes, timing.tRP + timing.tRCDRD + read)):
        memory = Dram(device, clock_mhz=clock_mhz, controller_latency_ns=25)
        memory.request(0, 0, 1, 16)
        start = finish(memory)[0] + 1000 * clock_mhz // 1000
        memory.request(start, address, 1, 16)
        # The clock edges do not meet in ``start`` as they do in cycle 0: a clock more or less.
        expected = cycles(device, clocks, **setting)
        assert abs(finish(memory)[0] - start - expected) <= ceil(clock_mhz * timing.tCK_ps / 10**6)


@pytest.mark.parametrize("name", device_names())
def test_latency_is_the_published_one(name: str) -> None:
    timing = load_device(name).timing
    clocks = timing.tRP + timing.tRCDRD + timing.CL
    assert float(clocks * timing.tCK_ps / 1000) == pytest.approx(PUBLISHED[name][0], abs=0.05)


@pytest.mark.parametrize("name", device_names())
def test_refresh_limits_bandwidth(name: str) -> None:
    """A sequential stream gets the peak but for the clocks that each refresh takes."""
    device, timing = load_device(name), load_device(name).timing
    one = replace(device, structure=replace(device.structure, channels=1))
    size = one.structure.column_bytes
    columns = 4 * timing.tREFI // max(timing.burst, timing.tCCD_S)
    memory = Dram(one, clock_mhz=1000, controller_latency_ns=0)
    given = columns * size / read_all(memory, stream(columns, size))
    lost = timing.tRTP + timing.tRPab + timing.tRFC + timing.tRCDRD
    expected = float(one.peak_bytes_per_ns) * (1 - lost / timing.tREFI)
    assert given == pytest.approx(expected, rel=0.01)
    published = PUBLISHED[name][1]
    if published:
        assert given == pytest.approx(published, rel=0.01)
    # Without refresh, all of the peak.
    never = replace(one, timing=replace(timing, tREFI=0))
    memory = Dram(never, clock_mhz=1000, controller_latency_ns=0)
    given = columns * size / read_all(memory, stream(columns, size))
    assert given == pytest.approx(float(one.peak_bytes_per_ns), rel=0.01)


def test_channels_add_up() -> None:
    """HBM2 by its channels: 32 GB/s each, two pseudo channels, refreshes taken off."""
    hbm = load_device("hbm2")
    for channels in (1, 2, 4, 16):
        device = replace(hbm, structure=replace(hbm.structure, channels=channels))
        columns = 6000 * channels
        memory = Dram(device, clock_mhz=1000, controller_latency_ns=0)
        given = columns * 32 / read_all(memory, stream(columns, 32))
        lost = (5 + 14 + 260 + 14) / 3900
        assert given == pytest.approx(16 * channels * (1 - lost), rel=0.03)


@pytest.mark.parametrize(("name", "apart"), [("ddr4-2400", 6), ("ddr4-3200", 8)])
def test_columns_of_a_group_are_far_apart(name: str, apart: int) -> None:
    """A row read from end to end, with all of it in one bank: tCCD_L for each column."""
    device = load_device(name)
    trace: list[list[Command]] = [[]]
    memory = Dram(device, mapping="rorabgbacoch", trace=trace)
    read_all(memory, stream(128, 64))
    clocks = [command.clock for command in trace[0] if command.name == "RD"]
    assert clocks == list(range(clocks[0], clocks[0] + 128 * apart, apart))


def test_activates_limit_scattered_reads() -> None:
    """With a new row for each column, four activates per tFAW."""
    device = load_device("ddr4-2400")
    device = replace(device, timing=replace(device.timing, tREFI=0))
    row = 8192 * 16
    # Banks in turn, each time another row.
    addresses = [(n % 16) * 8192 * 1 + (n // 16) * row for n in range(2000)]
    memory = Dram(device, mapping="rorababgcoch", clock_mhz=1000, controller_latency_ns=0)
    clocks = read_all(memory, addresses) / 0.833
    assert clocks / 2000 == pytest.approx(26 / 4, rel=0.02)
