"""Driving a whole memory: all requests known before, or learnt cycle by cycle."""

import random
from collections.abc import Iterable

from hwsim.memory import Dram


def finish(memory: Dram) -> list[int]:
    """Cycles of all beats that are under way, if nothing more is requested."""
    cycles = []
    while (cycle := memory.ready_cycle(settle=True)) is not None:
        cycles += [cycle] * memory.pop_column()
    return cycles


def read_all(memory: Dram, addresses: Iterable[int]) -> int:
    """Ask for a column at each address at once; the cycle in which the last has come."""
    size = memory.device.structure.column_bytes
    count = 0
    for address in addresses:
        memory.request(0, address, 1, size)
        count += 1
    cycles = finish(memory)
    assert len(cycles) == count
    return cycles[-1]


def stream(columns: int, size: int) -> list[int]:
    """Addresses of one sequential stream."""
    return [number * size for number in range(columns)]


def two_streams(columns: int, size: int, chunk_bytes: int) -> list[int]:
    """Addresses of two streams 256 MiB apart that take turns."""
    addresses: list[int] = []
    at = 0
    while len(addresses) < columns:
        for base in (0, 256 << 20):
            addresses += range(base + at, base + at + chunk_bytes, size)
        at += chunk_bytes
    return addresses


def scattered(columns: int, size: int) -> list[int]:
    """Addresses all over 8 GiB."""
    rng = random.Random(1)
    return [rng.randrange((8 << 30) // size) * size for _ in range(columns)]
