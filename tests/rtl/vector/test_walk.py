"""Beats, and lanes that count."""

from rtl.vector.walk import RowWalk
from tests.rtl.vector.bench import simulate
from tests.rtl.vector.rows import QUICK


def test_rows_that_see_more_and_more():
    """Ten channels; three count in the first row, one more in each, at most five."""
    dut, found = RowWalk(QUICK), []

    async def bench(ctx):
        fields = {"channels": 10, "length": 3, "length_most": 5, "longer": 1}
        ctx.set(dut.layer, fields)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.step, 1)
        for _ in range(12):
            found.append((ctx.get(dut.row), ctx.get(dut.beat), ctx.get(dut.live)))
            await ctx.tick()

    simulate(dut, bench)
    lengths = [3, 4, 5, 5]
    want = [
        (row, beat, sum(1 << i for i in range(4) if 4 * beat + i < length))
        for row, length in enumerate(lengths)
        for beat in range(3)
    ]
    assert found == want
