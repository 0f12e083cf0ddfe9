"""The vector engine: operations on rows in memory, between read channels and a write channel."""

import random

import numpy as np
from amaranth.sim import Simulator

from rtl.config import StreamerConfig
from rtl.vector.engine import OPERANDS, VectorEngine
from tests.rtl.vector.memory import Jobs, packed
from tests.rtl.vector.operations import MAKERS, wide
from tests.rtl.vector.rows import QUICK

BUS = StreamerConfig(bus_bits=64, d_max=8)


def test_rows_in_memory_to_rows_in_memory():
    """Every kind of operand and output: narrow, wide, two, numbers, factors, one row of all."""
    rng, chance = np.random.default_rng(5), random.Random(5)
    jobs, work = Jobs(QUICK.lanes), []
    for name, shape in (
        ("function_of_bytes", (3, 13)), ("add", (2, 9)), ("softmax", (2, 10)),
        ("rotary", (4, 6)), ("mean", (3, 5)), ("norm", (2, 8)),
    ):  # fmt: skip
        operation = MAKERS[name](rng, wide(rng, shape))
        record = jobs.take(64)
        work.append((packed(jobs.add(operation, record)), record))
    dut, word = VectorEngine(QUICK, BUS), jobs.word

    def reader(name):
        region, beats = getattr(dut, f"{name}_region"), getattr(dut, name)

        async def read(ctx):
            # By single ticks, as the run ends while it waits.
            asked = region.valid, region.payload.address, region.payload.granules
            while True:
                ctx.set(region.ready, 1)
                valid = 0
                while not valid:
                    _, _, valid, address, count = await ctx.tick().sample(*asked)
                ctx.set(region.ready, 0)
                for i in range(count):
                    while chance.random() < 0.3:
                        await ctx.tick()
                    raw = jobs.image[(address + i) * word :][:word]
                    ctx.set(beats.payload.data, int.from_bytes(raw, "little"))
                    ctx.set(beats.valid, 1)
                    ready = 0
                    while not ready:
                        _, _, ready = await ctx.tick().sample(beats.ready)
                    ctx.set(beats.valid, 0)

        return read

    counted = dict.fromkeys(("ends", "finished", "cycles"), 0)

    async def watch(ctx):
        ctx.set(dut.record.valid, 1)
        async for _, _, ends, finished in ctx.tick().sample(dut.ends, dut.finished):
            counted["ends"] += ends
            counted["finished"] += finished
            counted["cycles"] += 1
            assert counted["cycles"] < 6000, f"stands still after {counted}"

    async def write(ctx):
        """As the write DMA: a region is taken with its last beat."""
        for bits, record in work:
            ctx.set(dut.job.payload.as_value(), bits)
            ctx.set(dut.job.valid, 1)
            ctx.set(dut.record.payload, record)
            done = False
            while not done:
                await ctx.tick().until(dut.region.valid & dut.beats.valid)
                address = ctx.get(dut.region.payload.address)
                left = ctx.get(dut.region.payload.granules)
                while left:
                    ctx.set(dut.beats.ready, int(ctx.get(dut.beats.valid)))
                    if ctx.get(dut.beats.valid):
                        raw = ctx.get(dut.beats.payload).to_bytes(word, "little")
                        jobs.image[address * word : address * word + word] = raw
                        address, left = address + 1, left - 1
                        ctx.set(dut.region.ready, int(left == 0))
                        done = bool(ctx.get(dut.job.ready))
                    await ctx.tick()
                    ctx.set(dut.beats.ready, 0)
                    ctx.set(dut.region.ready, 0)
            ctx.set(dut.job.valid, 0)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (*map(reader, OPERANDS), watch):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(write)
    simulator.run()
    assert (counted["ends"], counted["finished"]) == (len(work), len(work))
    jobs.check()
    for _, record in work:
        assert int.from_bytes(jobs.image[record : record + 64], "little") == record
