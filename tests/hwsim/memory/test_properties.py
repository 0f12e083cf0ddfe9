"""Whatever is asked of a DRAM: nothing lost, in order, in legal commands, and always the same."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.memory import Command, Dram, device_names, load_device
from tests.hwsim.memory.jedec import late_refreshes, violations


@dataclass(frozen=True)
class Step:
    """A burst to read or to write, some cycles after the one before."""

    pause: int
    write: bool
    address: int
    beats: int


@st.composite
def steps(draw: st.DrawFn, most: int = 25) -> list[Step]:
    """Bursts of whole granules within 4 KiB pages, some near each other and some far apart."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        page = draw(st.sampled_from((0, 1, 2, 3, 64, 65, 8192, 100_000)))
        granule = draw(st.integers(0, 63))
        found.append(
            Step(
                draw(st.sampled_from((0, 1, 1, 2, 10, 100, 3000))),
                draw(st.booleans()),
                page << 12 | granule << 6,
                4 * draw(st.integers(1, min(16, 64 - granule))),
            )
        )
    return found


def memory_of(name: str, clock_mhz: int) -> tuple[Dram, list[list[Command]]]:
    device = load_device(name)
    trace: list[list[Command]] = [[] for _ in range(device.structure.channels)]
    return Dram(device, clock_mhz=clock_mhz, trace=trace), trace


BEAT = 16


def ask(memory: Dram, steps: list[Step]) -> tuple[list[int], list[int]]:
    """All bursts at their cycles; cycles of all beats, and of all answers to writes."""
    cycle, tickets = 0, []
    for step in steps:
        cycle += step.pause
        if step.write:
            for beat in range(step.beats):
                tickets.append(memory.write(cycle, step.address + beat * BEAT, BEAT))
                cycle += 1
        else:
            memory.request(cycle, step.address, step.beats, BEAT)
    beats, answers = [], []
    while (due := memory.ready_cycle(settle=True)) is not None:
        beats.append(due)
        memory.pop()
    for ticket in tickets:
        answer = memory.written_cycle(ticket, settle=True)
        assert answer is not None
        answers.append(answer)
    return beats, answers


def live(memory: Dram, steps: list[Step], until: int) -> tuple[list[int], list[int]]:
    """The same, cycle by cycle, as the AXI slaves do: what they know in a cycle is enough."""
    beats, answers, tickets = [], [], []
    plan = list(steps)
    start, left = plan[0].pause, 0
    for cycle in range(until):
        # What is driven in this cycle was decided at the end of the one before.
        memory.advance(max(0, cycle - 1))
        while (due := memory.ready_cycle()) is not None and due <= cycle:
            beats.append(cycle)
            memory.pop()
        while tickets and (due := memory.written_cycle(tickets[0])) is not None and due <= cycle:
            answers.append(cycle)
            tickets.pop(0)
        while plan and start <= cycle:
            step = plan[0]
            if step.write:
                tickets.append(memory.write(cycle, step.address + left * BEAT, BEAT))
                left += 1
                start += 1
                if left < step.beats:
                    continue
            else:
                memory.request(cycle, step.address, step.beats, BEAT)
            plan.pop(0)
            left = 0
            if plan:
                start += plan[0].pause
    return beats, answers


@pytest.mark.parametrize("name", device_names())
@settings(max_examples=12, deadline=None)
@given(steps(), st.sampled_from((100, 500, 1500)))
def test_any_traffic(name: str, plan: list[Step], clock_mhz: int) -> None:
    memory, trace = memory_of(name, clock_mhz)
    beats, answers = ask(memory, plan)
    assert len(beats) == sum(step.beats for step in plan if not step.write)
    assert len(answers) == sum(step.beats for step in plan if step.write)
    assert beats == sorted(beats)
    device = memory.device
    for commands in trace:
        assert [c.clock for c in commands] == sorted(c.clock for c in commands)
        assert violations(commands, device.structure, device.timing)[0] == []
        if commands:
            end = commands[-1].clock
            assert late_refreshes(commands, device.timing, device.structure.ranks, end) == []
    # Nothing comes before it can.
    first = next((n for n, step in enumerate(plan) if not step.write), None)
    if first is not None:
        start = sum(s.pause + s.write * s.beats for s in plan[:first]) + plan[first].pause
        fastest = (device.timing.CL + device.timing.burst) * device.timing.tCK_ps
        forwarded = any(s.write for s in plan[:first])
        assert beats[0] >= start + (0 if forwarded else fastest * clock_mhz // 10**6)
    # The same again.
    again, commands = memory_of(name, clock_mhz)
    assert ask(again, plan) == (beats, answers)
    assert commands == trace


@pytest.mark.parametrize("name", ["ddr4-2400", "lpddr5-6400", "hbm2"])
@settings(max_examples=8, deadline=None)
@given(steps(8), st.sampled_from((100, 500, 1500)))
def test_what_a_slave_knows_is_enough(name: str, plan: list[Step], clock_mhz: int) -> None:
    """Asked cycle by cycle, each beat and each answer comes in the cycle that is settled later."""
    beats, answers = ask(memory_of(name, clock_mhz)[0], plan)
    until = max(beats + answers) + 1
    memory, _ = memory_of(name, clock_mhz)
    assert live(memory, plan, until) == (beats, answers)


@pytest.mark.parametrize("name", ["ddr4-2400", "lpddr4-3200", "hbm2"])
@settings(max_examples=8, deadline=None)
@given(steps(20), st.integers(1, 4), st.sampled_from((100, 500, 1500)))
def test_requests_that_wait_for_beats(
    name: str, plan: list[Step], most: int, clock_mhz: int
) -> None:
    """A master with few bursts under way asks for the next in the cycle in which one ends.

    Whether the memory is asked cycle by cycle or lets the next beat settle makes no difference.
    """
    reads = [(step.address, step.beats) for step in plan]
    settled, _ = memory_of(name, clock_mhz)
    cycle, ahead, expected = 0, list(reads), []
    for address, beats in [ahead.pop(0) for _ in range(min(most, len(ahead)))]:
        settled.request(cycle, address, beats, BEAT)
    for _, beats in reads:
        for _ in range(beats):
            due = settled.ready_cycle(settle=True)
            assert due is not None
            cycle = max(cycle, due)
            expected.append(cycle)
            settled.pop()
        if ahead:
            settled.request(cycle, *ahead.pop(0), BEAT)

    stepped, _ = memory_of(name, clock_mhz)
    ahead, taken, left = list(reads), [], [beats for _, beats in reads]
    for address, beats in [ahead.pop(0) for _ in range(min(most, len(ahead)))]:
        stepped.request(0, address, beats, BEAT)
    for cycle in range(expected[-1] + 1):
        stepped.advance(max(0, cycle - 1))
        while (due := stepped.ready_cycle()) is not None and due <= cycle:
            taken.append(cycle)
            stepped.pop()
            left[0] -= 1
            if not left[0]:
                left.pop(0)
                if ahead:
                    stepped.request(cycle, *ahead.pop(0), BEAT)
    assert taken == expected


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_beats_of_any_shape(data: st.DataObject) -> None:
    """Beats narrower and wider than a column, from any aligned address: all come, in order."""
    name = data.draw(st.sampled_from(device_names()))
    beat = data.draw(st.sampled_from((2, 8, 16, 32, 64)))
    memory, _ = memory_of(name, 500)
    expected = 0
    for _ in range(data.draw(st.integers(1, 5))):
        address = beat * data.draw(st.integers(0, 4096 // beat - 1))
        beats = data.draw(st.integers(1, min(256, (4096 - address) // beat)))
        memory.request(0, address, beats, beat)
        expected += beats
    cycles = []
    while (due := memory.ready_cycle(settle=True)) is not None:
        cycles.append(due)
        memory.pop()
    assert len(cycles) == expected and cycles == sorted(cycles)
