"""Memory models: timing of the ideal one, and its text form."""

from fractions import Fraction

import pytest

from hwsim import IdealMemory, MemoryModel, parse_memory
from vq.container import ConfigError


def delivered(memory: MemoryModel, beats: int) -> list[int]:
    cycles = []
    for _ in range(beats):
        cycle = memory.ready_cycle()
        assert cycle is not None
        cycles.append(cycle)
        memory.pop()
    assert memory.ready_cycle() is None
    return cycles


def test_latency_then_one_beat_per_cycle() -> None:
    memory = IdealMemory(bytes_per_cycle=16, latency_cycles=20)
    memory.request(5, 0, 4, 16)
    assert delivered(memory, 4) == [25, 26, 27, 28]


def test_requests_overlap() -> None:
    memory = IdealMemory(bytes_per_cycle=16, latency_cycles=20)
    memory.request(0, 0, 4, 16)
    memory.request(1, 64, 2, 16)
    memory.request(90, 128, 1, 16)
    assert delivered(memory, 7) == [20, 21, 22, 23, 24, 25, 110]


@pytest.mark.parametrize(
    ("bytes_per_cycle", "cycles"),
    [
        (8, [3, 5, 7, 9]),  # half a bus: a beat every other cycle
        (Fraction(16, 3), [4, 7, 10, 13]),
        (Fraction(32, 3), [3, 4, 6, 7]),  # two beats in three cycles; no part of one is lost
        (64, [2, 2, 2, 3]),  # faster than the bus, which takes one per cycle anyway
    ],
)
def test_bandwidth(bytes_per_cycle: Fraction, cycles: list[int]) -> None:
    memory = IdealMemory(bytes_per_cycle=bytes_per_cycle, latency_cycles=2)
    memory.request(0, 0, 4, 16)
    expected = cycles if bytes_per_cycle != 64 else [2, 2, 2, 2]
    assert delivered(memory, 4) == expected


def test_parse() -> None:
    memory = parse_memory("ideal:bytes_per_cycle=12.8,latency=7")
    assert memory.bytes_per_cycle == Fraction(64, 5)
    assert memory.describe() == {"name": "ideal", "bytes_per_cycle": 12.8, "latency_cycles": 7}
    assert parse_memory("ideal").describe() == IdealMemory().describe()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "ddr4-2401",
            r"^memory must be one of ideal, ddr4-2400, .*, or a file\.ini, not 'ddr4-2401'",
        ),
        ("ddr4-240", r"\(did you mean 'ddr4-2400'\?\)$"),
        ("", r"^memory must be one of ideal, .*, not ''$"),
        ("ideal:latencies=3", r"not 'latencies' \(did you mean 'latency'\?\)"),
        ("ideal:latency=x", r"- latency must be a whole number of cycles, at least 1, not 'x'"),
        ("ideal:latency=0", r"^memory latency must be at least 1 cycle, not 0"),
        ("ideal:latency=1.5", r"- latency must be a whole number"),
        ("ideal:bytes_per_cycle=0", r"^memory bytes_per_cycle must be above 0, not 0"),
        ("ideal:bytes_per_cycle=nan", r"- bytes_per_cycle must be a number above 0, not 'nan'"),
        ("ideal:bytes_per_cycle=1/0", r"- bytes_per_cycle must be a number above 0, not '1/0'"),
        ("ideal:latency=3,latency=4", r"- latency must be given once"),
        ("ideal:a=1,b=2", r"^memory 'ideal:a=1,b=2' has 2 problems:"),
    ],
)
def test_parse_refuses(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_memory(spec)
