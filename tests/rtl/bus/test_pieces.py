"""Pieces of memory: their regions, in the order of the loops."""

from itertools import product

from amaranth.sim import Simulator

from rtl.bus.pieces import LOOPS, PieceWalk

BEAT = 16


def test_loops_around_a_piece():
    """The innermost one first; the next pieces begin anew."""
    jobs = [
        {"address": 640, "run": 3, "loops": ((2, 5), (3, 100), (2, 1000))},
        {"address": 16, "run": 1, "loops": ((1, 7), (1, 7), (1, 7))},
        {"address": 64, "run": 2, "loops": ((1, 9), (4, 2), (1, 0))},
    ]
    want = []
    for job in jobs:
        for outer, middle, inner in product(*(range(count) for count, _ in job["loops"][::-1])):
            steps = zip((inner, middle, outer), job["loops"], strict=True)
            moved = sum(step * pitch for step, (_, pitch) in steps)
            want.append((job["address"] // BEAT + moved, job["run"]))
    dut = PieceWalk(BEAT)

    async def give(ctx):
        for job in jobs:
            loops = zip(LOOPS, job["loops"], strict=True)
            fields = {name: {"count": count, "pitch": pitch} for name, (count, pitch) in loops}
            ctx.set(dut.pieces.payload, {"address": job["address"], "run": job["run"], **fields})
            ctx.set(dut.pieces.valid, 1)
            await ctx.tick().until(dut.pieces.ready)
        ctx.set(dut.pieces.valid, 0)

    async def take(ctx):
        region = dut.region.payload
        for number, expected in enumerate(want):
            await ctx.tick().repeat(1 + number % 3)  # held until it is taken
            ctx.set(dut.region.ready, 1)
            found = await ctx.tick().sample(region.address, region.granules).until(dut.region.valid)
            assert tuple(found) == expected, number
            ctx.set(dut.region.ready, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(take)
    simulator.run()
