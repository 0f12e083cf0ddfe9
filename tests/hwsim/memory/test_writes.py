"""Writes: when they are answered, when they go, and what reads of them see."""

from itertools import pairwise

from hwsim.memory import Command, Dram
from tests.hwsim.memory.devices import device
from tests.hwsim.memory.traffic import finish

#: Clock and cycle are the same, nothing is added: what is accepted in cycle c is there in c + 1.
EVEN = {"clock_mhz": 1000, "controller_latency_ns": 0}


def dram(**control: int) -> tuple[Dram, list[Command]]:
    trace: list[Command] = []
    return Dram(device(**control), trace=[trace], **EVEN), trace


def test_answered_at_once_while_there_is_room() -> None:
    memory, _ = dram(write_columns=8, write_high=4, write_low=0)
    tickets = [memory.write(cycle, 8 * cycle, 8) for cycle in range(10)]
    assert [memory.written_cycle(ticket) for ticket in tickets] == list(range(1, 11))


def test_answered_when_one_has_gone_if_there_is_none() -> None:
    memory, trace = dram(write_columns=4, write_high=4, write_low=0)
    tickets = [memory.write(cycle, 16 * cycle, 16) for cycle in range(12)]
    answers = [memory.written_cycle(ticket, settle=True) for ticket in tickets]
    gone = [command.clock for command in trace if command.name == "WR"]
    # Three columns may wait before one more is taken on.
    assert answers[:4] == [1, 2, 3, 4]
    assert answers[4:] == [max(n + 1, gone[n - 4]) for n in range(4, 12)]
    assert answers[-1] > 12


def test_undecided_until_time_has_gone_on() -> None:
    memory, _ = dram(write_columns=2, write_high=2, write_low=0)
    tickets = [memory.write(cycle, 16 * cycle, 16) for cycle in range(6)]
    assert memory.written_cycle(tickets[-1]) is None
    memory.advance(60)
    answer = memory.written_cycle(tickets[-1])
    assert answer is not None and answer < 60


def test_a_column_goes_when_it_is_complete() -> None:
    memory, trace = dram()
    memory.write(0, 0, 8)
    memory.advance(100)
    assert memory.counts(100)["writes"] == 0
    memory.write(100, 8, 8)
    assert memory.counts(200)["writes"] == 1
    assert [command.clock for command in trace if command.name == "WR"] == [101 + 6]


def test_or_when_another_is_written() -> None:
    memory, trace = dram()
    memory.write(0, 0, 8)
    memory.write(50, 64, 16)
    assert memory.counts(300)["writes"] == 2
    assert len([command for command in trace if command.name == "WR"]) == 2


def test_a_read_of_what_waits_is_answered_by_the_controller() -> None:
    memory, trace = dram(write_columns=16, write_high=8, write_low=0)
    memory.request(0, 1024, 8, 16)  # keeps the writes waiting
    memory.write(1, 0, 16)
    memory.request(2, 0, 1, 16)
    cycles = finish(memory)
    reads = [command for command in trace if command.name == "RD"]
    assert len(cycles) == 9 and len(reads) == 8
    # Behind the others, for data come in order; but not later than they.
    assert cycles[-1] == cycles[-2]


def test_so_is_one_of_a_column_that_is_not_complete() -> None:
    memory, trace = dram()
    memory.write(0, 0, 8)
    memory.request(50, 0, 1, 16)
    memory.request(50, 64, 1, 16)
    cycles = finish(memory)
    assert cycles[0] == 51 < cycles[1]
    assert [command.name for command in trace] == ["ACT", "RD"]


def test_a_read_of_what_has_gone_is_a_read() -> None:
    memory, trace = dram()
    memory.write(0, 0, 16)
    memory.request(100, 0, 1, 16)
    assert len(finish(memory)) == 1
    assert [command.name for command in trace] == ["ACT", "WR", "RD"]


def test_writes_wait_for_reads_and_go_together() -> None:
    """One turn of the bus and back for all of them, not one for each."""
    memory, trace = dram(write_columns=16, write_high=8, write_low=0)
    for number in range(200):
        memory.request(number, 16 * number, 1, 16)
        if number < 120 and number % 6 == 0:
            memory.write(number, 2048 + 16 * number, 16)
    assert memory.counts(2000)["writes"] == 20
    names = [command.name for command in trace if command.name in ("RD", "WR")]
    assert sum(a != b for a, b in pairwise(names)) <= 8
