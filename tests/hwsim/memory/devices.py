"""Devices and traffic for tests of the DRAM model."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hwsim.memory import Command, Control, Device, Structure, Timing
from hwsim.memory.channel import Channel
from hwsim.memory.checks import problems_of
from hwsim.memory.side import Column
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


def columns_of(accesses: list[Access]) -> list[Column]:
    """The same for the model."""
    return [[a.number, a.bank, a.row, a.arrival, -1] for a in accesses]


def served(
    device: Device, reads: list[Access], writes: list[Access], until: list[int]
) -> tuple[list[Command], list[Column], list[Column]]:
    """What a channel does with traffic that it learns step by step."""
    trace: list[Command] = []
    channel = Channel(device.structure, device.timing, device.control, trace)
    columns = columns_of(reads), columns_of(writes)
    waiting = [list(columns[0]), list(columns[1])]
    for clock in until:
        for kind, take in zip(waiting, (channel.incoming.append, channel.write), strict=True):
            while kind and kind[0][3] < clock:
                take(kind.pop(0))
        channel.run(clock)
    return trace, *columns


def clocked(
    device: Device, reads: list[Access], writes: list[Access], clocks: int
) -> list[Command]:
    """What the slow controller does."""
    model = Clocked(device.structure, device.timing, device.control, list(reads), list(writes))
    return model.run(clocks)


def consistent(device: Device) -> bool:
    """No contradiction in it."""
    return not problems_of(device)
