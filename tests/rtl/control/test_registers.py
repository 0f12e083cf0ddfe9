"""Registers by AXI4-Lite: values, order of address and data, errors."""

import random

import pytest
from amaranth.sim import Simulator

from rtl.control.registers import IDENTITY, REGISTERS, RegisterFile, register_map

ADDRESSES = register_map()


class Host:
    """AXI4-Lite accesses with pauses."""

    def __init__(self, dut, seed):
        self.dut, self.chance = dut, random.Random(seed)

    async def write(self, ctx, address, value, strobe=0b1111):
        axi = self.dut.s_axi
        ctx.set(axi.awaddr, address)
        ctx.set(axi.wdata, value)
        ctx.set(axi.wstrb, strobe)
        waiting = {"aw": axi.awvalid, "w": axi.wvalid}
        if self.chance.random() < 0.5:
            waiting = dict(reversed(waiting.items()))
        for name, valid in waiting.items():
            ready = getattr(axi, f"{name}ready")
            ctx.set(valid, 1)
            await ctx.tick().until(ready)
            ctx.set(valid, 0)
            if self.chance.random() < 0.5:
                await ctx.tick()
        for _ in range(self.chance.randrange(3)):
            await ctx.tick()
        ctx.set(axi.bready, 1)
        (response,) = await ctx.tick().sample(axi.bresp).until(axi.bvalid)
        ctx.set(axi.bready, 0)
        return response

    async def read(self, ctx, address):
        axi = self.dut.s_axi
        ctx.set(axi.araddr, address)
        ctx.set(axi.arvalid, 1)
        await ctx.tick().until(axi.arready)
        ctx.set(axi.arvalid, 0)
        for _ in range(self.chance.randrange(3)):
            await ctx.tick()
        ctx.set(axi.rready, 1)
        value, response = await ctx.tick().sample(axi.rdata, axi.rresp).until(axi.rvalid)
        ctx.set(axi.rready, 0)
        return value, response


def simulate(test, seed=0):
    dut = RegisterFile()
    host = Host(dut, seed)

    async def bench(ctx):
        await test(ctx, dut, host)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("seed", range(4))
def test_every_register(seed):
    async def test(ctx, dut, host):
        for number, register in enumerate(REGISTERS):
            address = ADDRESSES[register.name]
            assert address == 4 * number
            if register.writable:
                assert await host.read(ctx, address) == (register.reset, 0)
                assert await host.write(ctx, address, 0xFFFF0000 + number & ~1) == 0
                value = getattr(dut.written, register.name.lower())
                expected = 0b10 & number if register.name == "CONTROL" else 0xFFFF0000 + number & ~1
                assert ctx.get(value) == expected
                assert await host.read(ctx, address) == (expected, 0)
            else:
                ctx.set(getattr(dut.values, register.name.lower()), 1000 + number)
                assert await host.write(ctx, address, 5) == 0  # ignored
                assert await host.read(ctx, address) == (1000 + number, 0)

    simulate(test, seed)


def test_start_is_a_pulse():
    async def test(ctx, dut, host):
        for value, starts in ((0b00, 0), (0b10, 0), (0b01, 1), (0b11, 1)):
            axi = dut.s_axi
            ctx.set(axi.awaddr, ADDRESSES["CONTROL"])
            ctx.set(axi.wdata, value)
            ctx.set(axi.wstrb, 0b1111)
            ctx.set(axi.awvalid, 1)
            ctx.set(axi.wvalid, 1)
            ctx.set(axi.bready, 1)
            found = 0
            for _ in range(6):
                _, _, start, ready = await ctx.tick().sample(dut.start, axi.awready)
                found += start
                if ready:
                    ctx.set(axi.awvalid, 0)
                    ctx.set(axi.wvalid, 0)
            assert found == starts
            assert ctx.get(dut.written.control) == value & 0b10

    simulate(test)


def test_errors():
    async def test(ctx, dut, host):
        behind = 4 * len(REGISTERS)
        assert await host.read(ctx, behind) == (0, 2)
        assert await host.write(ctx, behind, 1) == 2
        assert await host.write(ctx, ADDRESSES["LAYERS"], 7, strobe=0b0011) == 2
        assert ctx.get(dut.written.layers) == 0
        assert await host.read(ctx, ADDRESSES["LAYERS"] + 2) == (0, 2)
        assert IDENTITY >> 16 == int.from_bytes(b"SB", "big")

    simulate(test)
