"""Rescaler of groups against the integer graph's arithmetic."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.rescale import GroupRescaler
from vq.integer.groups import rescale

TOP = 2**31 - 1


def run(config, work, scales, count, idle):
    """Totals that come for ``work``, and the cycles in which partials, scales and totals passed."""
    dut = GroupRescaler(config)
    chance = random.Random(0)
    found, times = [], {"partials": [], "scales": [], "totals": []}
    cycle = 0

    def feeder(port, items):
        async def feed(ctx):
            for item in items:
                while chance.random() < idle:
                    await ctx.tick()
                ctx.set(port.payload, item)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)

        return feed

    async def take(ctx):
        nonlocal cycle
        assert ctx.get(dut.idle)
        while len(found) < count:
            ready = chance.random() >= idle
            ctx.set(dut.totals.ready, int(ready))
            if ready and ctx.get(dut.totals.valid):
                found.append([ctx.get(dut.totals.payload[o]) for o in range(config.rows)])
            for name, seen in times.items():
                port = getattr(dut, name)
                if ctx.get(port.valid) and ctx.get(port.ready):
                    seen.append(cycle)
                    assert name == "partials" or not ctx.get(dut.idle)
            cycle += 1
            await ctx.tick()
        assert ctx.get(dut.idle)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feeder(dut.partials, work), background=True)
    simulator.add_testbench(feeder(dut.scales, scales), background=True)
    simulator.add_testbench(take)
    simulator.run()
    return np.array(found), times


def case(config, seed, blocks, groups, positions):
    """Partials, scales and totals of random blocks; shifts and magnitudes from end to end."""
    rng = np.random.default_rng(seed)
    shape = (blocks, groups, positions, config.rows)
    shift = rng.choice([0, 1, 7, 16, 31], blocks)
    sums = rng.integers(-TOP, TOP, shape) >> rng.integers(0, 31, shape)
    scale = rng.integers(-32767, 32768, (blocks, groups, 1, config.rows))
    sums[0, 0, 0, :4], scale[0, 0, 0, :4] = (TOP, -TOP, TOP, -TOP), (32767, 32767, -32767, 0)
    shift[0] = 31
    totals = np.zeros((blocks, positions, config.rows), np.int64)
    for block in range(blocks):
        # Terms that no graph has would not fit.
        most = TOP // groups >> max(0, 15 - int(shift[block]))
        sums[block] = np.clip(sums[block], -most, most) if shift[block] < 16 else sums[block]
        for group in range(groups):
            numbers = scale[block, group].astype(np.int16)
            totals[block] += rescale(sums[block, group], numbers, int(shift[block]))
    totals = (totals + 2**31) % 2**32 - 2**31
    work = [
        {
            "sums": [int(v) for v in sums[block, group, at]],
            "at": at,
            "first": int(group == 0),
            "last": int(group == groups - 1),
        }
        for block in range(blocks)
        for group in range(groups)
        for at in range(positions)
    ]
    scales = [
        {
            "scales": [int(v) for v in scale[block, group, 0]],
            "shift": int(shift[block]),
            "positions": positions,
        }
        for block in range(blocks)
        for group in range(groups)
    ]
    return work, scales, totals.reshape(-1, config.rows)


@pytest.mark.parametrize("idle", [0.0, 0.4])
@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("positions", [1, 2, 5])
def test_equals_the_integer_graph(positions, lanes, idle):
    config = ArrayConfig(
        rows=8, columns=8, lanes=64, d_max=8, scale_lanes=lanes, accumulators=max(2, positions)
    )
    work, scales, totals = case(config, positions, 6, 4, positions)
    found, times = run(config, work, scales, len(totals), idle)
    assert found.tolist() == totals.tolist()
    last = [times["partials"][i] for i, item in enumerate(work) if item["last"]]
    latency = np.subtract(times["totals"], last).min()
    assert latency >= 8 // lanes + 4
    if idle == 0:
        assert latency == 8 // lanes + 4
        assert times["totals"][-1] - times["partials"][0] == len(work) * (8 // lanes) + 4


def test_a_position_every_second_cycle_never_waits():
    """16 outputs through 8 lanes: sums of groups of two or more tiles pass as they come."""
    config = ArrayConfig()
    work, scales, totals = case(config, 0, 3, 8, 1)
    found, times = run(config, work, scales, len(totals), 0)
    assert found.tolist() == totals.tolist()
    # The first one is only held; from then on one leaves as the next one comes.
    assert times["partials"] == [0, *range(2, 2 * len(work), 2)]
    assert times["scales"] == list(range(2, 2 * len(work) + 1, 2))
