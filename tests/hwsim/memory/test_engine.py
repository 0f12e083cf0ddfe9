"""The engine in C: what it refuses, long runs, memory that it keeps, several at once."""

import dataclasses
import random
import resource
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest

from hwsim import parse_memory
from hwsim.memory import Device, Dram, device_names, engine, load_device
from tests.hwsim.memory.devices import BANKS, SMALL, device
from tests.hwsim.memory.traffic import finish
from vq.errors import ConfigError, SimulationError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 1 << 31}, r"- rows must be below 2\*\*31, not 2147483648$"),
        ({"ranks": 1 << 15}, r"- ranks must make 65536 banks in all at most, not 131072$"),
        ({"rows": 1 << 30, "row_bytes": 1 << 30}, r"- rows must make 2\*\*62 bytes in all at most"),
        ({"channels": 3}, r"- channels must be a power of two, not 3$"),
    ],
)
def test_structures_that_do_not_fit(change: dict[str, int], message: str) -> None:
    structure = dataclasses.replace(BANKS, **change)
    with pytest.raises(ConfigError, match=message):
        Dram(device(structure=structure))


def test_timings_that_do_not_fit() -> None:
    timing = dataclasses.replace(SMALL, tRFC=1 << 31, tREFI=1 << 40)
    with pytest.raises(ConfigError, match=r"- tRFC must be below 2\*\*31, not 2147483648\n- tREFI"):
        Dram(device(timing))


def test_clocks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"^memory clock_mhz and controller_latency_ns must be "):
        parse_memory("ddr4-2400:clock_mhz=1.000000000001,controller_latency_ns=1.000000000001")


@pytest.mark.parametrize("beats", [(0, 16), (1, 0), (-1, 16), (1 << 62, 16), (1 << 28, 16)])
def test_bursts_that_are_none(beats: tuple[int, int]) -> None:
    memory = Dram(device())
    with pytest.raises(ConfigError, match=r"^memory: bytes must be 1 to 2\*\*31 in all, not a bur"):
        memory.request(0, 0, *beats)
    assert memory.ready_cycle(settle=True) is None


def test_what_is_asked_out_of_order() -> None:
    memory = Dram(device())
    with pytest.raises(ConfigError, match=r"not a beat of 0 bytes$"):
        memory.write(0, 0, 0)
    with pytest.raises(SimulationError, match=r"^memory: a beat must be decided before"):
        memory.pop()
    memory.request(0, 0, 4, 16)
    with pytest.raises(SimulationError, match=r"^memory: a beat must be decided before"):
        memory.pop_column()
    tickets = [memory.write(5, 16 * n, 16) for n in range(3)]
    assert memory.written_cycle(tickets[1], settle=True) is not None
    for ticket in (tickets[0], 3, -1):
        with pytest.raises(SimulationError, match=rf"^memory: ticket must .*, not {ticket}$"):
            memory.written_cycle(ticket)


def test_numbers_without_bounds() -> None:
    """A queue of 2**100 columns is one that is never full."""
    cycles = []
    for many in (1 << 20, 1 << 100):
        memory = Dram(device(bank_queue_columns=many, window_columns=many, hit_limit=many))
        for n in range(500):
            memory.request(0, n * 4096 % 12288, 1, 16)
        cycles.append(finish(memory))
    assert cycles[0] == cycles[1]


def still(device: Device) -> Device:
    """Without refresh, so that nothing depends on when."""
    return dataclasses.replace(device, timing=dataclasses.replace(device.timing, tREFI=0))


@pytest.mark.parametrize("start", [1 << 31, 1 << 40, 1 << 53, 1 << 60])
def test_late_cycles(start: int) -> None:
    """The same behind 2**60 cycles as at the beginning."""
    found = []
    for begin in (1000, start):
        memory = Dram(still(device()), clock_mhz=1000)
        for n in range(200):
            memory.request(begin + n, n * 48 * 16, 2, 16)
        tickets = [memory.write(begin + 200 + n, 16 * n, 16) for n in range(80)]
        cycles = finish(memory)
        cycles += [memory.written_cycle(ticket, settle=True) or 0 for ticket in tickets]
        found.append([cycle - begin for cycle in cycles])
    assert found[0] == found[1]


def test_late_cycles_of_clocks_that_hardly_meet() -> None:
    """Cycles to clocks and back are exact where 64 bits are not enough."""
    one = still(load_device("ddr4-2400"))
    mhz, latency = Fraction("333.333333333333"), Fraction("12.5")
    cycle, clock = 1_000_000 / mhz, one.timing.tCK_ps
    for start in (7, 1 << 48, (1 << 55) + 3):
        memory = Dram(one, clock_mhz=mhz, controller_latency_ns=latency)
        memory.request(start, 0, 1, 16)
        arrival = ceil(((start + 1) * cycle + latency * 1000) / clock)
        end = arrival + one.timing.tRCDRD + one.timing.read_end
        assert finish(memory) == [ceil(end * clock / cycle)]


def test_a_refresh_is_counted_in_clocks_above_32_bits() -> None:
    timing = dataclasses.replace(SMALL, tREFI=(1 << 31) - 1, tRFC=1 << 20)
    memory = Dram(device(timing), clock_mhz=1000)
    assert memory.counts(100 << 31)["refreshes"] == 2 * 100


def stream(memory: Dram, bursts: int, at: int) -> int:
    """Reads with some writes between them, as an accelerator asks; the last cycle."""
    cycle, waiting, tickets = at, 0, []
    for number in range(bursts):
        memory.request(cycle, number * 256, 16, 16)
        waiting += 256
        if number % 16 == 0:
            tickets = [memory.write(cycle, (1 << 24) + 16 * n + number, 16) for n in range(16)]
        while waiting > 1024:
            cycle = max(cycle, memory.ready_cycle(settle=True) or 0)
            waiting -= 16 * memory.pop_column()
        if tickets and number % 16 == 8:
            cycle = max(cycle, memory.written_cycle(tickets[-1], settle=True) or 0)
    finish(memory)
    return cycle


def resident_bytes() -> int:
    """Of this process, now."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("/proc/self/statm must be there to see how much memory is used")
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def test_a_long_stream_takes_no_memory() -> None:
    memory = Dram(load_device("hbm2"))
    cycle = stream(memory, 2000, 0)
    before = resident_bytes()
    stream(memory, 30_000, cycle + 1)
    # Kept, 30 thousand bursts would take 25 MB of columns alone.
    assert resident_bytes() - before < 2 << 20
    assert memory.counts(0)["reads"] == 32_000 * 8


def test_memories_come_and_go() -> None:
    Dram(load_device("hbm2")).request(0, 0, 256, 16)
    before = resident_bytes()
    for _ in range(500):
        Dram(load_device("hbm2")).request(0, 0, 256, 16)
    assert resident_bytes() - before < 4 << 20


def test_two_know_nothing_of_each_other() -> None:
    """Asked in turns, each does what it does alone."""

    def steps(memory: Dram, seed: int):
        rng, cycle = random.Random(seed), 0
        for _ in range(300):
            cycle += rng.randrange(20)
            memory.request(cycle, rng.randrange(1 << 20) * 64, 4, 16)
            memory.write(cycle, rng.randrange(1 << 20) * 64, 16)
            yield memory.ready_cycle()
        yield memory.counts(cycle + 1000)
        yield finish(memory)

    names = device_names()
    alone = [list(steps(Dram(load_device(name)), n)) for n, name in enumerate(names)]
    turns = [steps(Dram(load_device(name)), n) for n, name in enumerate(names)]
    together = list(zip(*turns, strict=True))
    assert [list(found) for found in zip(*together, strict=True)] == alone


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNBOOK_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    engine._library.cache_clear()
    with pytest.raises(SimulationError, match=r"^no-such-compiler must be on PATH"):
        parse_memory("ddr4-2400")
    assert parse_memory("ideal").describe()["name"] == "ideal"
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    engine._library.cache_clear()
