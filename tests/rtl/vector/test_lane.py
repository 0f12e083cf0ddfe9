"""One lane: rounding and the ends of formats."""

import pytest

from rtl.vector.lane import WIDE_MAX, Lane
from tests.rtl.vector.bench import simulate


@pytest.mark.parametrize("narrow", [0, 1])
def test_saturates(narrow):
    """Around the ends of int8 and int16, and far beyond: x · 2**14 rounded by two bits."""
    dut = Lane()
    low, high = (-128, 127) if narrow else (-WIDE_MAX, WIDE_MAX)
    xs = [0, 1, -1, 2, -2, 509, 510, 511, -510, -513, -514, -515, -32768, 32767]
    shifts = {2: 1, 16: 2**14, 40: 32767}  # shift to multiplier

    async def bench(ctx):
        ctx.set(dut.advance, 1)
        ctx.set(dut.layer.narrow, narrow)
        ctx.set(dut.final, 1)
        ctx.set(dut.live, 1)
        for shift, multiplier in {**shifts, 1: 2, 0: 7}.items():
            fields = {"wide": 1, "value": 1, "b": 3, "low": 1, "high": 1}
            ctx.set(dut.operands, fields | {"common_b": multiplier, "common_shift": shift})
            for x in xs:
                ctx.set(dut.x, x)
                await ctx.tick().repeat(5)
                want = (x * multiplier + ((1 << shift) >> 1)) >> shift
                assert ctx.get(dut.result) == max(low, min(high, want)), (x, shift)

    simulate(dut, bench)
