"""Division and root against numpy."""

import math

import numpy as np
from amaranth.sim import Simulator

from rtl.vector.serial import Reciprocal, Root
from vq.integer.tokens.arithmetic import reciprocal


def results(dut, values, read):
    """Results of one start after another, and the cycles that each took."""
    found = []

    async def bench(ctx):
        for value in values:
            ctx.set(dut.value, int(value))
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            cycles = 0
            while not ctx.get(dut.done):
                await ctx.tick()
                cycles += 1
            found.append((*(ctx.get(getattr(dut, name)) for name in read), cycles))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def test_reciprocal():
    rng = np.random.default_rng(0)
    values = [1, 2, 3, 4, 2**27 - 1, 2**27, 2**28 - 1, 16383, 16384, 16385]
    values += [int(2**e) for e in rng.uniform(0, 28, 40)]
    r, n = reciprocal(np.array(values))
    want = [(int(a), int(b), 14) for a, b in zip(r, n, strict=True)]
    assert results(Reciprocal(28), values, ["quotient", "length"]) == want


def test_root():
    rng = np.random.default_rng(1)
    values = [2**30, 2**32 - 1, 65535**2, 65535**2 - 1, 65535**2 + 1, 0, 1]
    values += rng.integers(2**30, 2**32, 30).tolist()
    assert results(Root(), values, ["root"]) == [(math.isqrt(v), 16) for v in values]
