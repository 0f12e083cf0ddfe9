"""Requantiser against the integer graph's arithmetic."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.requantize import Requantizer
from vq.integer import requantize


@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_equals_the_integer_graph(lanes, idle):
    config = ArrayConfig(rows=8, columns=8, lanes=64, d_max=8, scale_lanes=lanes)
    rng = np.random.default_rng(lanes)
    count = 60
    top = 2**31 - 1
    totals = rng.integers(-top // 2, top // 2, (count, 8)) >> rng.integers(0, 24, (count, 8))
    bias = rng.integers(-top // 2, top // 2, (count, 8)) >> rng.integers(0, 24, (count, 8))
    totals[0], bias[0] = top, 0
    totals[1], bias[1] = -top, 0
    multiplier = rng.integers(-32767, 32768, (count, 8))
    multiplier[:2] = 32767
    shift = rng.integers(1, 48, (count, 8))
    shift[0], shift[1] = 47, 1
    relu = rng.integers(0, 2, count)
    dut = Requantizer(config)
    chance = random.Random(lanes)
    found, times = [], []

    async def give(ctx):
        for i in range(count):
            while chance.random() < idle:
                await ctx.tick()
            fields = [
                {"bias": int(b), "multiplier": int(m), "shift": int(s)}
                for b, m, s in zip(bias[i], multiplier[i], shift[i], strict=True)
            ]
            ctx.set(dut.positions.p.totals, [int(v) for v in totals[i]])
            ctx.set(dut.positions.p.scaling, fields)
            ctx.set(dut.positions.p.relu, int(relu[i]))
            ctx.set(dut.positions.valid, 1)
            await ctx.tick().until(dut.positions.ready)
            ctx.set(dut.positions.valid, 0)

    async def take(ctx):
        cycle = 0
        while len(found) < count:
            ready = chance.random() >= idle
            ctx.set(dut.words.ready, int(ready))
            if ready and ctx.get(dut.words.valid):
                found.append([ctx.get(dut.words.payload[o]) for o in range(8)])
                times.append(cycle)
            await ctx.tick()
            cycle += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(take)
    simulator.run()
    for i in range(count):
        want = requantize(
            totals[i] + bias[i], multiplier[i].astype(np.int16), shift[i].astype(np.uint8),
            relu=bool(relu[i]),
        )  # fmt: skip
        assert found[i] == want.tolist()
    if idle == 0:
        assert times[-1] - times[0] == (count - 1) * (8 // lanes)
