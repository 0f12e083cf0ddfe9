"""Write DMA against a slave that checks AXI4's rules."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.bus.write import WriteDMA


@pytest.mark.parametrize("idle", [0.0, 0.4])
@pytest.mark.parametrize(("bits", "unit"), [(64, 64), (128, 64), (512, 64), (64, 8)])
def test_regions_are_written(bits, unit, idle):
    """Regions of granules, and of beats."""
    rng = np.random.default_rng(bits)
    regions = [(5, 1), (60, 9), (1, 3), (14, 4), (75, 2)]  # address and length in units
    image = bytearray(64 * 80)
    beat_bytes = bits // 8
    data = [rng.integers(0, 256, unit * length, dtype=np.uint8).tobytes() for _, length in regions]
    dut = WriteDMA(address_bits=32, data_bits=bits, burst_bytes=256, unit_bytes=unit)
    chance = random.Random(bits)
    state = {"bursts": 0, "answers": 0, "cycles": 0, "errors": 0}

    async def regions_in(ctx):
        for address, length in regions:
            ctx.set(dut.region.payload, {"address": address, "granules": length})
            ctx.set(dut.region.valid, 1)
            await ctx.tick().until(dut.region.ready)
        ctx.set(dut.region.valid, 0)

    async def beats_in(ctx):
        for part in data:
            for at in range(0, len(part), beat_bytes):
                while chance.random() < idle:
                    await ctx.tick()
                ctx.set(dut.beats.payload, int.from_bytes(part[at : at + beat_bytes], "little"))
                ctx.set(dut.beats.valid, 1)
                await ctx.tick().until(dut.beats.ready)
                ctx.set(dut.beats.valid, 0)

    async def slave(ctx):
        axi = dut.m_axi
        open_bursts, owed = [], []  # [address, beats left]; responses
        total = sum(map(len, data))
        held_aw = held_w = None
        written = 0
        while written < total or owed or ctx.get(dut.pending):
            aw_ready, w_ready = (int(chance.random() >= idle) for _ in range(2))
            ctx.set(axi.awready, aw_ready)
            ctx.set(axi.wready, w_ready)
            answer = bool(owed) and chance.random() >= idle
            ctx.set(axi.bvalid, int(answer))
            ctx.set(axi.bresp, owed[0] if answer else 0)
            state["errors"] += ctx.get(dut.error)
            if answer:
                owed.pop(0)
            if ctx.get(axi.awvalid):
                fields = ctx.get(axi.awaddr), ctx.get(axi.awlen)
                assert held_aw in (None, fields)
                held_aw = None if aw_ready else fields
                if aw_ready:
                    address, beats = fields[0], fields[1] + 1
                    assert address % unit == 0 and beats * beat_bytes <= 256
                    assert address // 256 == (address + beats * beat_bytes - 1) // 256
                    open_bursts.append([address, beats])
                    state["bursts"] += 1
            else:
                assert held_aw is None
            if ctx.get(axi.wvalid):
                fields = ctx.get(axi.wdata), ctx.get(axi.wlast)
                assert held_w in (None, fields)
                assert open_bursts or held_aw, "data before their address"
                take = w_ready and bool(open_bursts)
                if w_ready and not open_bursts:
                    ctx.set(axi.wready, 0)  # a slave may wait for the address
                held_w = None if take else fields
                if take:
                    burst = open_bursts[0]
                    image[burst[0] : burst[0] + beat_bytes] = fields[0].to_bytes(
                        beat_bytes, "little"
                    )
                    burst[0] += beat_bytes
                    burst[1] -= 1
                    written += beat_bytes
                    assert fields[1] == (burst[1] == 0)
                    if burst[1] == 0:
                        open_bursts.pop(0)
                        state["answers"] += 1
                        owed.append(2 if state["answers"] == 2 else 0)
            else:
                assert held_w is None
            state["cycles"] += 1
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(regions_in, background=True)
    simulator.add_testbench(beats_in, background=True)
    simulator.add_testbench(slave)
    simulator.run()
    for (address, _), part in zip(regions, data, strict=True):
        assert image[unit * address : unit * address + len(part)] == part
    assert state["errors"] >= 1
    if idle == 0:
        beats = sum(map(len, data)) // beat_bytes
        assert state["cycles"] <= beats + 3 * state["bursts"] + 8
