"""Array and accumulators against numpy."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.sim import Simulator

from rtl.compute.accumulate import Accumulators
from rtl.compute.array import MacArray
from rtl.compute.config import ArrayConfig

CONFIG = ArrayConfig(rows=8, columns=8, lanes=64, d_max=8, accumulators=5)
R, C = CONFIG.rows, CONFIG.columns


@pytest.mark.parametrize("positions", [1, 2, 3, 5])
@pytest.mark.parametrize("pause", [0.0, 0.4])
def test_sums_over_tiles(positions, pause):
    rng = np.random.default_rng(positions)
    tiles = 4
    x = rng.integers(-128, 128, (positions, tiles, C))
    w = rng.integers(-127, 128, (tiles, R, C))
    x[0], w[:, 0] = -128, -127  # the largest products there are
    array = MacArray(CONFIG)
    sums = Accumulators(CONFIG)
    top = Module()
    top.submodules.array, top.submodules.sums = array, sums
    top.d.comb += [sums.enable.eq(array.enable), sums.sums.eq(array.sums)]
    found = {}
    work = [(t, p) for t in range(tiles) for p in range(positions)]

    async def drive(ctx):
        tags = []  # of the two stages of the array
        done = 0
        for step in [*work, *[None] * 5]:
            while rng.random() < pause:
                ctx.set(array.enable, 0)
                await ctx.tick()
            ctx.set(array.enable, 1)
            if step is not None:
                t, p = step
                ctx.set(array.activations, [int(v) for v in x[p, t]])
                ctx.set(array.weights, [[int(v) for v in row] for row in w[t]])
            tags = [step, *tags[:2]]
            now = tags[2] if len(tags) == 3 else None
            ctx.set(sums.valid, int(now is not None))
            if now is not None:
                t, p = now
                tag = {"at": p, "first": int(t == 0), "last": int(t == tiles - 1), "log2_group": 3}
                ctx.set(sums.tag, tag)
            if ctx.get(sums.done):
                found[ctx.get(sums.at)] = [ctx.get(sums.totals[o]) for o in range(R)]
                done += 1
            await ctx.tick()
        assert done == positions

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    want = np.einsum("toc,ptc->po", w, x)
    assert [found[p] for p in range(positions)] == want.tolist()
