"""Greatest values, sums, squares."""

from rtl.vector.reduce import Reducer
from tests.rtl.vector.bench import simulate
from tests.rtl.vector.rows import QUICK


def test_rows_back_to_back():
    """Extremes of 16 bits; lanes that do not count; the next row begins at once."""
    dut, found = Reducer(QUICK), []
    rows = [
        (1, [([-32768, 32767, 5, -5], 0b1111), ([9, 9, -32768, 9], 0b0011)]),
        (0, [([-7, -9, 32767, 32767], 0b0011)]),
        (0, [([-32768] * 4, 0b1111)] * 2),
    ]

    async def give(ctx):
        for magnitudes, row in rows:
            for i, (values, live) in enumerate(row):
                last = i == len(row) - 1
                while last and ctx.get(dut.outstanding):
                    ctx.set(dut.beat.valid, 0)
                    await ctx.tick()
                fields = {"valid": 1, "values": values, "live": live, "first": int(i == 0)}
                ctx.set(dut.beat, fields | {"last": int(last), "magnitudes": magnitudes})
                await ctx.tick()
        ctx.set(dut.beat.valid, 0)

    async def take(ctx):
        ctx.set(dut.rows.ready, 1)
        while len(found) < len(rows):
            await ctx.tick()
            if ctx.get(dut.rows.valid):
                row = dut.rows.payload
                found.append([ctx.get(row.most), ctx.get(row.total), ctx.get(row.squares)])

    simulate(dut, give, take)
    want = []
    for magnitudes, row in rows:
        kept = [v for values, live in row for i, v in enumerate(values) if live >> i & 1]
        most = max(map(abs, kept)) if magnitudes else max(kept)
        want.append([most, sum(kept), sum(v * v for v in kept)])
    assert found == want
