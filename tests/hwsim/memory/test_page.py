"""The tables of docs/memory.md are what the model gives."""

import re
from dataclasses import replace

import pytest

from hwsim.memory import Dram, EnergyTable, load_device
from tests.hwsim.memory.page import PAGE, table
from tests.hwsim.memory.traffic import read_all, scattered, stream, two_streams

EVEN = {"clock_mhz": 1000, "controller_latency_ns": 0}


@pytest.mark.parametrize("name", table("devices"))
def test_devices(name: str) -> None:
    device, timing = load_device(name), load_device(name).timing
    size = device.structure.column_bytes
    columns = 8 * timing.tREFI // max(timing.burst, timing.tCCD_S) * device.structure.channels
    columns = min(columns, 24_000)
    memory = Dram(device, **EVEN)
    cycles = read_all(memory, stream(columns, size))
    energy = memory.energy(cycles)
    assert energy is not None
    given = [
        float(device.peak_bytes_per_ns),
        columns * size / cycles,
        float((timing.tRCDRD + timing.read_end) * timing.tCK_ps / 1000),
        float(EnergyTable(device).read_pj) / (8 * size),
        energy.total_pj / (8 * size * columns),
    ]
    assert given == pytest.approx([float(cell) for cell in table("devices")[name]], abs=0.051)


@pytest.mark.parametrize("mapping", table("mappings"))
def test_mappings(mapping: str) -> None:
    device, columns = load_device("ddr4-2400"), 12_000
    for chunk, cell in zip(
        (0, 256, 1024, 4096, 16384, -1), table("mappings")[mapping], strict=True
    ):
        if chunk < 0:
            reads = scattered(columns, 64)
        else:
            reads = two_streams(columns, 64, chunk) if chunk else stream(columns, 64)
        memory = Dram(device, mapping=mapping, **EVEN)
        cycles = read_all(memory, reads)
        energy = memory.energy(cycles)
        assert energy is not None
        given = (len(reads) * 64 / cycles, energy.total_pj / (512 * len(reads)))
        assert given == pytest.approx([float(n) for n in cell.split(",")], abs=0.11)


def test_defaults_are_those_of_the_page() -> None:
    memory = Dram(load_device("ddr4-2400"))
    facts = memory.describe()
    for name in ("clock_mhz", "controller_latency_ns"):
        (default,) = re.findall(rf"^\| `{name}` \|.*\| (\d+) \|$", PAGE, re.M)
        assert float(default) == facts[name]
    control = replace(memory.device.control)
    for number in (control.window_columns, control.bank_queue_columns, control.write_high):
        assert f" {number} " in PAGE
