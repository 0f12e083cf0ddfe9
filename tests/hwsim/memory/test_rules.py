"""Every timing constraint: commands come when it allows them, and not one clock earlier."""

import dataclasses
import random

import pytest

from hwsim.memory import Command, Timing
from tests.hwsim.memory.clocked import Access
from tests.hwsim.memory.devices import BANKS, SMALL, consistent, device, served
from tests.hwsim.memory.jedec import late_refreshes, violations

_END = 6_000
#: A value for each timing that makes it the one that counts.
_BINDING = {
    "burst": 6,
    "tRC": 45,
    "tRCDRD": 17,
    "tRCDWR": 18,
    "tRAS": 40,
    "tRP": 20,
    "tRPab": 25,
    "tRTP": 19,
    "tWR": 20,
    "tCCD_S": 9,
    "tCCD_L": 12,
    "tRRD_S": 11,
    "tRRD_L": 14,
    "tFAW": 45,
    "tWTR_S": 11,
    "tWTR_L": 14,
    "tRTW": 21,
    "tRTRS": 9,
    "tPPD": 13,
    "tRFC": 70,
    "activate_clocks": 6,
    "column_clocks": 8,
    "precharge_clocks": 7,
}


def variant(name: str, value: int) -> Timing:
    """The small timings with one changed, and those above it moved out of its way."""
    timing = dataclasses.replace(SMALL, **{name: value})
    return dataclasses.replace(
        timing,
        tRAS=max(timing.tRAS, timing.tRCDRD, timing.tRCDWR),
        tRPab=max(timing.tRPab, timing.tRP),
        tRC=max(timing.tRC, timing.tRAS + timing.tRP) if name != "tRC" else value,
        tCCD_L=max(timing.tCCD_L, timing.tCCD_S),
        tRRD_L=max(timing.tRRD_L, timing.tRRD_S),
        tWTR_L=max(timing.tWTR_L, timing.tWTR_S),
        tFAW=max(timing.tFAW, timing.tRRD_S),
        tRTW=max(timing.tRTW, timing.CL + timing.burst - timing.CWL),
    )


def busy(timing: Timing) -> list[Command]:
    """Commands of traffic that leaves out no pair of banks, rows or directions."""
    rng = random.Random(1)
    reads, writes, clock = [], [], 0
    for number in range(500):
        clock += rng.choice((0, 0, 1, 2, 40, 0, 60))
        bank, row = rng.randrange(8), rng.choice((0, 0, 0, 1, 2))
        (writes if rng.random() < 0.3 else reads).append(Access(number, clock, bank, row))
    one = device(timing, write_columns=8, write_high=4, write_low=1)
    assert consistent(one)
    trace, *_ = served(one, reads, writes, [_END])
    assert len([c for c in trace if c.name in ("RD", "WR")]) > 250
    assert late_refreshes(trace, timing, BANKS.ranks, _END) == []
    return trace


@pytest.mark.parametrize("name", _BINDING)
def test_legal_at_the_limit_and_not_before(name: str) -> None:
    value = _BINDING[name]
    timing = variant(name, value)
    found, slack = violations(busy(timing), BANKS, timing)
    assert found == []
    assert slack[name] == 0
    # A model that believes in one clock less breaks this rule.
    wrong = dataclasses.replace(timing, **{name: value - 1})
    if name == "tRP":  # tRC would hide it
        wrong = dataclasses.replace(wrong, tRC=wrong.tRC - 1)
    found, _ = violations(busy(wrong), BANKS, timing)
    assert {line.partition(":")[0] for line in found} >= {name}


def test_every_timing_is_tested() -> None:
    others = {"tCK_ps", "CL", "CWL", "tDQSCK", "tDQSS", "tREFI", "split_command_bus"}
    assert {field.name for field in dataclasses.fields(Timing)} == others | _BINDING.keys()


@pytest.mark.parametrize("name", ["CL", "CWL", "tDQSCK", "tDQSS"])
def test_data_come_when_the_latency_says(name: str) -> None:
    """Latencies move the data, and with them whatever shares the data bus."""
    for more in (0, 1):
        timing = dataclasses.replace(SMALL, tRTW=14, **{name: getattr(SMALL, name) + more})
        reads, writes = [Access(0, 5, 0, 0)], [Access(0, 5, 7, 0)]
        trace, cycles = served(device(timing), reads, writes, [300])
        clocks = {command.name: command.clock for command in trace}
        assert cycles == [clocks["RD"] + timing.CL + timing.tDQSCK + timing.burst]
        assert violations(trace, BANKS, timing)[0] == []


def test_refresh_waits_for_nothing_but_rows() -> None:
    """It becomes due in the midst of hits: rows are closed, and no column goes in between."""
    reads = [Access(n, 180, 0, 0) for n in range(30)]
    trace, *_ = served(device(), reads, [], [500])
    by_name = [command.name for command in trace if command.rank == 0]
    assert by_name[by_name.index("PREA") + 1] == "REF"
    close = next(command for command in trace if command.name == "PREA")
    last = [c.clock for c in trace if c.clock < close.clock and c.name == "RD"][-1]
    act = next(command.clock for command in trace if command.name == "ACT")
    assert close.clock == max(last + SMALL.tRTP, act + SMALL.tRAS)
    # Ranks take turns: half an interval apart.
    assert [c.rank for c in trace if c.name == "REF"] == [0, 1]


def test_a_conflict_is_not_put_off_for_ever() -> None:
    """Hits that keep coming give way when the row has given as many as the limit says."""
    timing = dataclasses.replace(SMALL, tCCD_S=12, tCCD_L=12, tREFI=0)
    reads = [Access(0, 0, 0, 0), Access(1, 0, 0, 1)]
    reads += [Access(n, 6 * n, 0, 0) for n in range(2, 40)]
    for limit, given in ((3, 3), (5, 5), (100, 39)):
        trace, *_ = served(device(timing, hit_limit=limit), reads, [], [800])
        names = [command.name for command in trace]
        assert names[: names.index("PRE")].count("RD") == given


def test_an_old_column_that_gets_its_place_late_goes_first() -> None:
    """The second column of bank 0 waits for room in its queue, a younger one of bank 2 does not."""
    timing = dataclasses.replace(SMALL, tCCD_L=SMALL.tCCD_S, tREFI=0)
    reads = [Access(0, 0, 0, 0), Access(1, 0, 0, 0), Access(2, 0, 2, 5), Access(3, 0, 2, 5)]
    one = device(timing, bank_queue_columns=1)
    trace, *_ = served(one, reads, [], [200])
    assert [command.bank for command in trace if command.name == "RD"] == [0, 0, 2, 2]
    slow = [Access(0, 0, 0, 0), Access(1, 9, 0, 0), Access(2, 9, 2, 5)]
    trace, *_ = served(device(timing), [Access(9, 0, 2, 5), *slow], [], [200])
    assert [command.bank for command in trace if command.name == "RD"] == [2, 0, 0, 2]


def test_the_checker_sees_every_kind_of_fault() -> None:
    """Each command of a legal trace one clock earlier, left out, or in another bank."""
    trace = busy(SMALL)[:400]
    assert violations(trace, BANKS, SMALL)[0] == []
    for name in ("ACT", "PRE", "RD", "WR", "REF", "PREA"):
        index = next(i for i, command in enumerate(trace) if command.name == name)
        gone = trace[:index] + trace[index + 1 :]
        if name in ("ACT", "PRE", "PREA"):
            assert any(line.startswith("state") for line in violations(gone, BANKS, SMALL)[0])
        twice = [*trace[: index + 1], trace[index], *trace[index + 1 :]]
        assert violations(twice, BANKS, SMALL)[0]
    without = [command for command in trace if command.name != "REF"]
    assert late_refreshes(without, SMALL, BANKS.ranks, trace[-1].clock)
