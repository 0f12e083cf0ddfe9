"""Tables."""

import numpy as np

from rtl.vector.table import Table
from tests.rtl.vector.bench import simulate
from tests.rtl.vector.rows import QUICK, number_beats


def test_two_tables():
    """Loading one leaves the other; every lane finds its own entry, and the step to the next."""
    rng = np.random.default_rng(6)
    tables = rng.integers(-32768, 32768, (2, 257))
    dut = Table(QUICK)

    async def bench(ctx):
        for number, table in enumerate(tables):
            ctx.set(dut.number, number)
            for beat in number_beats([table], 4):
                ctx.set(dut.entries.payload, beat)
                ctx.set(dut.entries.valid, 1)
                await ctx.tick().until(dut.entries.ready)
            ctx.set(dut.entries.valid, 0)
        ctx.set(dut.enable, 1)
        for number, table in enumerate(tables):
            ctx.set(dut.number, number)
            for places in ([0, 255, 128, 127], [1, 1, 254, 3]):
                ctx.set(dut.places, places)
                await ctx.tick()
                for lane, place in enumerate(places):
                    entry = dut.found[lane]
                    assert ctx.get(entry.value) == table[place] % 2**16
                    assert ctx.get(entry.difference) == table[place + 1] - table[place]

    simulate(dut, bench)
