"""Sums of results."""

from rtl.vector.tally import Tally
from tests.rtl.vector.bench import simulate
from tests.rtl.vector.rows import QUICK


def test_rows_one_after_another():
    """Results of 2**15 count without a sign."""
    dut, found = Tally(QUICK), []
    rows = [[[32768] * 4, [1, 2, 3, 4]], [[5, 0, 0, 127]], [[32768, 0, 0, 0]] * 3]

    async def bench(ctx):
        for row in rows:
            for i, beat in enumerate(row):
                ctx.set(dut.results, beat)
                ctx.set(dut.ended, {"valid": 1, "row_ends": int(i == len(row) - 1)})
                await ctx.tick()
            ctx.set(dut.ended, {"valid": 0})
            await ctx.tick().until(dut.sums.valid)
            found.append(ctx.get(dut.sums.payload))
            ctx.set(dut.sums.ready, 1)
            await ctx.tick()
            ctx.set(dut.sums.ready, 0)

    simulate(dut, bench)
    assert found == [sum(map(sum, row)) for row in rows]
