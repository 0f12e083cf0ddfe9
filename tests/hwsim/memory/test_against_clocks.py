"""The event-driven channel against a clock-by-clock one: the same commands in the same clocks."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hwsim.memory.devices import (
    Draw,
    clocked,
    consistent,
    random_accesses,
    random_device,
    read_cycles,
    served,
)
from tests.hwsim.memory.jedec import late_refreshes, violations

CLOCKS = 700


def compare(draw: Draw, most: int) -> int:
    """Give both the same traffic, which the model learns in steps; commands that came out."""
    device = random_device(draw)
    assert consistent(device)
    structure, timing = device.structure, device.timing
    banks = structure.ranks * structure.bank_groups * structure.banks_per_group
    reads = random_accesses(draw, banks, draw(0, most))
    writes = random_accesses(draw, banks, draw(0, most // 2) * draw(0, 1))
    until = sorted(draw(1, CLOCKS) for _ in range(draw(0, 5)))
    trace, cycles = served(device, reads, writes, [*until, CLOCKS])
    assert trace == clocked(device, reads, writes, CLOCKS)
    assert violations(trace, structure, timing)[0] == []
    if timing.tREFI:
        assert late_refreshes(trace, timing, structure.ranks, CLOCKS) == []
    # Data can be taken when these commands have brought them.
    expected = read_cycles(trace, reads, timing)
    assert cycles[: len(expected)] == expected
    return len(trace)


@pytest.mark.parametrize("first", range(0, 150, 15))
def test_same_commands_in_dense_traffic(first: int) -> None:
    commands = [compare(random.Random(seed).randint, 60) for seed in range(first, first + 15)]
    assert sum(commands) > 500


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_same_commands(data: st.DataObject) -> None:
    """Where it does not hold, the smallest case that shows it."""
    compare(lambda low, high: data.draw(st.integers(low, high)), 20)
