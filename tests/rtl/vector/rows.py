"""Operations of the vector unit as integers in and out, and a run of them on the hardware."""

import random
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from rtl.vector.config import VectorConfig
from rtl.vector.unit import VectorUnit

QUICK = VectorConfig(lanes=4, row_max=64)


@dataclass
class Operation:
    """One layer: fields of its descriptor, what comes, and what must come out."""

    fields: dict
    x: np.ndarray  # [rows, N]
    want: np.ndarray  # [rows, N]
    y: np.ndarray | None = None
    numbers: list = field(default_factory=list)  # tables [257] or channels [N, 3]
    factors: list = field(default_factory=list)  # (factor, shift) of each row

    def layer(self):
        rows, channels = self.x.shape
        own = {"rows": rows, "channels": channels, "length": channels, "length_most": channels}
        return own | self.fields


def beats(rows, lanes):
    """[rows, N] to beats; what fills the last beat of a row is noise."""
    rows = np.asarray(rows)
    fill = -rows.shape[1] % lanes
    noise = np.random.default_rng(rows.size).integers(-32639, 32640, (len(rows), fill))
    whole = np.concatenate([rows, noise], axis=1)
    return [[int(v) for v in beat] for row in whole for beat in row.reshape(-1, lanes)]


def number_beats(parts, lanes):
    """Tables and channels as they come."""
    found = []
    for part in parts:
        part = np.asarray(part)
        if part.ndim == 1:
            found += beats(part[None], lanes)
            continue
        filled = np.pad(part, ((0, -len(part) % lanes), (0, 0)))
        bias, multiplier, shift = (filled[:, i].astype(np.int64) for i in range(3))
        digits = np.stack([bias & 0xFFFF, bias >> 16, multiplier, shift], axis=1)
        signed = ((digits + 2**15) & 0xFFFF) - 2**15
        found += [[int(v) for v in beat] for beat in signed.reshape(-1, lanes)]
    return found


def run(operations, config=QUICK, idle=0.0, seed=0):
    """Rows out of each operation, factors, and the cycle in which its last beat came."""
    dut = VectorUnit(config)
    lanes = config.lanes
    chance = random.Random(seed)

    def feeder(port, items):
        async def feed(ctx):
            for item in items:
                while chance.random() < idle:
                    await ctx.tick()
                ctx.set(port.payload, item)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)

        return feed

    total = sum(len(beats(one.want, lanes)) for one in operations)
    found, times, factors = [], [], []

    async def take_factors(ctx):
        while True:
            ready = chance.random() >= idle
            ctx.set(dut.factors.ready, int(ready))
            if ready and ctx.get(dut.factors.valid):
                payload = dut.factors.payload
                factors.append((ctx.get(payload.factor), ctx.get(payload.shift)))
            await ctx.tick()

    async def take(ctx):
        cycle = quiet = 0
        while len(found) < total or len(factors) < sum(len(one.factors) for one in operations):
            ready = chance.random() >= idle
            ctx.set(dut.outputs.ready, int(ready))
            if ready and ctx.get(dut.outputs.valid):
                found.append([ctx.get(dut.outputs.payload[i]) for i in range(lanes)])
                times.append(cycle)
                quiet = 0
            await ctx.tick()
            cycle, quiet = cycle + 1, quiet + 1
            assert quiet < 3000, f"nothing comes after {len(found)} of {total} beats"
        for _ in range(12):
            ctx.set(dut.outputs.ready, 1)
            assert not ctx.get(dut.outputs.valid), "more comes than was asked for"
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    y = [beat for one in operations if one.y is not None for beat in beats(one.y, lanes)]
    numbers = [beat for one in operations for beat in number_beats(one.numbers, lanes)]
    for process in (
        feeder(dut.layer, [one.layer() for one in operations]),
        feeder(dut.values, [beat for one in operations for beat in beats(one.x, lanes)]),
        feeder(dut.other, y),
        feeder(dut.numbers, numbers),
        take_factors,
    ):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(take)
    simulator.run()

    results, ends, at = [], [], 0
    for one in operations:
        rows, channels = one.want.shape
        each = -(-channels // lanes)
        part = np.array(found[at : at + rows * each]).reshape(rows, each * lanes)
        at += rows * each
        assert not part[:, channels:].any(), "what fills a row must be zero"
        results.append(part[:, :channels])
        ends.append(times[at - 1])
    return results, factors, ends


def check(operations, **options):
    """Require what the arithmetic of integer graphs gives; the cycles at which each one ended."""
    results, factors, ends = run(operations, **options)
    for one, result in zip(operations, results, strict=True):
        assert result.tolist() == one.want.tolist(), one.fields
    assert factors == [pair for one in operations for pair in one.factors]
    return ends
