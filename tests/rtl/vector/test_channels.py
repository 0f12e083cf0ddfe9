"""Numbers of channels."""

import numpy as np

from rtl.vector.channels import Channels
from tests.rtl.vector.bench import simulate
from tests.rtl.vector.rows import QUICK, number_beats


def test_loaded_and_kept():
    rng = np.random.default_rng(7)
    numbers = np.stack(
        [
            rng.integers(-(2**31), 2**31, 10),
            rng.integers(-32768, 32768, 10),
            rng.integers(0, 64, 10),
        ],
        axis=1,
    )
    dut = Channels(QUICK)

    async def bench(ctx):
        ctx.set(dut.beats, 3)
        ctx.set(dut.enable, 1)
        for beat in number_beats([numbers], 4):
            assert not ctx.get(dut.loaded)
            ctx.set(dut.numbers.payload, beat)
            ctx.set(dut.numbers.valid, 1)
            done = ctx.get(dut.loaded)
            await ctx.tick()
            ctx.set(dut.numbers.valid, 0)
        assert done
        for at in range(3):
            ctx.set(dut.at, at)
            await ctx.tick()
            for lane, want in enumerate(numbers[4 * at : 4 * at + 4].tolist()):
                one = dut.found[lane]
                found = [ctx.get(getattr(one, n)) for n in ("bias", "multiplier", "shift")]
                assert found == want
        ctx.set(dut.keep, 1)
        ctx.set(dut.kept, 1)
        ctx.set(dut.sums, [1, -2, 2**31 - 1, -(2**31)])
        await ctx.tick()
        ctx.set(dut.keep, 0)
        ctx.set(dut.at, 1)
        await ctx.tick()
        kept = [ctx.get(dut.found[lane].bias) for lane in range(4)]
        assert kept == [1, -2, 2**31 - 1, -(2**31)]

    simulate(dut, bench)
