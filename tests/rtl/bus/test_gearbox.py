"""Words of one width into words of another, against bytes joined by Python."""

import gc
import random

import pytest
from amaranth.sim import Simulator

from rtl.bus.gearbox import Gearbox


@pytest.mark.parametrize(("put", "get"), [(8, 32), (32, 8), (64, 512), (512, 64)])
@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_same_bits_in_the_same_order(put, get, idle):
    chance = random.Random(put + get)
    count = 6 * max(put, get) // put
    words = [chance.getrandbits(put) for _ in range(count)]
    bits = sum(word << i * put for i, word in enumerate(words))
    want = [bits >> i * get & (1 << get) - 1 for i in range(count * put // get)]
    dut, found, cycles = Gearbox(put, get), [], 0

    async def give(ctx):
        for word in words:
            while chance.random() < idle:
                await ctx.tick()
            ctx.set(dut.put.payload, word)
            ctx.set(dut.put.valid, 1)
            await ctx.tick().until(dut.put.ready)
            ctx.set(dut.put.valid, 0)

    async def take(ctx):
        nonlocal cycles
        while len(found) < len(want):
            ctx.set(dut.get.ready, chance.random() >= idle)
            _, _, valid, ready, word = await ctx.tick().sample(
                dut.get.valid, dut.get.ready, dut.get.payload
            )
            cycles += 1
            if valid and ready:
                found.append(word)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(take)
    simulator.run()
    assert found == want
    if not idle:
        assert cycles == max(len(words), len(want))


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_widths_must_divide():
    with pytest.raises(ValueError, match="widths must divide each other, not 8 and 12"):
        Gearbox(8, 12)
    gc.collect()  # Amaranth warns when what was refused goes away: here, not in a later test
