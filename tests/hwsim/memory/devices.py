"""Devices and traffic for tests of the DRAM model."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hwsim.memory import Command, Control, Device, Dram, Structure, Timing
from hwsim.memory.checks import problems_of
from tests.hwsim.memory.clocked import Access, Clocked

#: Draws a whole number between two, both included.
Draw = Callable[[int, int], int]
#: A device with small, unequal numbers: no timing hides behind another that happens to be the same.
SMALL = Timing(
    tCK_ps=Fraction(1000),
    burst=2,
    CL=7,
    CWL=5,
    tRCDRD=8,
    tRCDWR=6,
    tRP=9,
    tRPab=11,
    tRAS=19,
    tRC=29,
    tRTP=5,
    tWR=7,
    tCCD_S=3,
    tCCD_L=4,
    tRRD_S=3,
    tRRD_L=5,
    tFAW=17,
    tWTR_S=3,
    tWTR_L=5,
    tRTW=8,
    tRFC=40,
    tREFI=400,
    tRTRS=2,
    tPPD=2,
)
BANKS = Structure(
    ranks=2, bank_groups=2, banks_per_group=2, rows=64, row_bytes=256, column_bytes=16
)


def device(timing: Timing = SMALL, structure: Structure = BANKS, **control: Any) -> Device:
    """A device that is not in the data files."""
    return Device(
        name="test",
        structure=structure,
        timing=timing,
        rails=(),
        mapping="rorababgcoch",
        control=Control(**control),
    )


def random_timing(draw: Draw) -> Timing:
    """Timings without contradictions, in all proportions."""
    rcd_read, rcd_write, rp = draw(1, 12), draw(1, 12), draw(1, 12)
    ras = max(rcd_read, rcd_write) + draw(0, 20)
    ccd, rrd, wtr = draw(1, 6), draw(1, 6), draw(0, 6)
    timing = Timing(
        tCK_ps=Fraction(1000),
        burst=draw(1, 4),
        CL=draw(1, 12),
        CWL=draw(1, 12),
        tRCDRD=rcd_read,
        tRCDWR=rcd_write,
        tRP=rp,
        tRPab=rp + draw(0, 4),
        tRAS=ras,
        tRC=ras + rp + draw(0, 5),
        tRTP=draw(1, 10),
        tWR=draw(1, 10),
        tCCD_S=ccd,
        tCCD_L=ccd + draw(0, 5),
        tRRD_S=rrd,
        tRRD_L=rrd + draw(0, 5),
        tFAW=rrd + draw(0, 30),
        tWTR_S=wtr,
        tWTR_L=wtr + draw(0, 6),
        tRTW=draw(1, 20),
        tRFC=draw(1, 60),
        tREFI=0,
        tRTRS=draw(0, 3),
        tPPD=draw(0, 4),
        tDQSCK=draw(0, 3),
        tDQSS=draw(0, 2),
        activate_clocks=draw(1, 4),
        column_clocks=draw(1, 4),
        precharge_clocks=draw(1, 2),
        split_command_bus=draw(0, 1),
    )
    # Writes behind reads must find the data bus free by tRTW alone.
    least = timing.read_end - (timing.write_end - timing.burst)
    refresh = timing.tRTP + timing.tRPab + timing.tRFC + timing.tRCDRD
    return dataclasses.replace(
        timing,
        tRTW=max(timing.tRTW, least),
        tREFI=(0, refresh + 60, refresh + 200)[draw(0, 2)],
    )


def random_device(draw: Draw) -> Device:
    """A few banks in one or two ranks, and small queues, so that they fill up."""
    low, high = draw(0, 3), draw(1, 4)
    structure = Structure(
        ranks=1 << draw(0, 1),
        bank_groups=1 << draw(0, 2),
        banks_per_group=1 << draw(0, 1),
        rows=8,
        row_bytes=256,
        column_bytes=16,
    )
    return device(
        random_timing(draw),
        structure,
        window_columns=draw(1, 6),
        bank_queue_columns=draw(1, 4),
        hit_limit=draw(1, 4),
        write_columns=low + high + draw(0, 2),
        write_high=low + high,
        write_low=low,
        arbitration=("oldest", "rotating")[draw(0, 1)],
    )


def random_accesses(draw: Draw, banks: int, count: int) -> list[Access]:
    """Columns in bursts and at a distance, in few banks and rows."""
    pauses = ((0, 0, 0, 0, 0, 30), (0, 1, 2, 3, 4, 8), (0, 0, 1, 20, 40, 150))[draw(0, 2)]
    clock, rows, found = 0, draw(0, 2), []
    for number in range(count):
        clock += pauses[draw(0, 5)]
        found.append(Access(number, clock, draw(0, banks - 1), draw(0, rows)))
    return found


def served(
    device: Device, reads: list[Access], writes: list[Access], until: list[int]
) -> tuple[list[Command], list[int]]:
    """What a memory does with traffic that it learns step by step; cycles of what has been read.

    A cycle is a clock, and what is accepted in one arrives in the next. Reads and writes are of
    different columns, so that none is answered by the controller.
    """
    trace: list[Command] = []
    structure = device.structure
    banks = structure.ranks * structure.bank_groups * structure.banks_per_group
    memory = Dram(
        device, mapping="rorabgbacoch", clock_mhz=1000, controller_latency_ns=0, trace=[trace]
    )
    waiting = [(access, 0) for access in reads] + [(access, 1) for access in writes]
    waiting.sort(key=lambda entry: entry[0].arrival)
    for clock in until:
        while waiting and waiting[0][0].arrival < clock:
            access, is_write = waiting.pop(0)
            column = (access.number * 2 + is_write) % structure.columns
            place = (access.row * banks + access.bank) * structure.columns + column
            address = place * structure.column_bytes
            if is_write:
                memory.write(access.arrival - 1, address, structure.column_bytes)
            else:
                memory.request(access.arrival - 1, address, 1, structure.column_bytes)
        memory.counts(clock - 1)
    memory.counts(until[-1])
    commands, cycles = list(trace), []
    while (cycle := memory.ready_cycle()) is not None:
        cycles += [cycle] * memory.pop_column()
    return commands, cycles


def read_cycles(commands: list[Command], reads: list[Access], timing: Timing) -> list[int]:
    """When data can be taken if these are the commands: in order, up to the first not read."""
    given: dict[tuple[int, int], list[int]] = {}
    for command in commands:
        if command.name == "RD":
            given.setdefault((command.bank, command.row), []).append(command.clock)
    cycles: list[int] = []
    for access in reads:
        clocks = given.get((access.bank, access.row))
        if not clocks:
            break
        cycles.append(max([clocks.pop(0) + timing.read_end, *cycles[-1:]]))
    return cycles


def clocked(
    device: Device, reads: list[Access], writes: list[Access], clocks: int
) -> list[Command]:
    """What the slow controller does."""
    model = Clocked(device.structure, device.timing, device.control, list(reads), list(writes))
    return model.run(clocks)


def consistent(device: Device) -> bool:
    """No contradiction in it."""
    return not problems_of(device)
