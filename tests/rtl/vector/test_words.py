"""Words of memory to beats and back."""

import random

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from rtl.vector.config import VectorConfig
from rtl.vector.words import Pack, Spread

CONFIG = VectorConfig(lanes=4, row_max=64)


@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("beats", [1, 2, 3])
@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_there_and_back(narrow, beats, idle):
    """Values keep their places and signs; what fills the last word of a row becomes zero."""
    rng = np.random.default_rng(beats)
    rows, each = 5, 4 * beats
    dtype = np.int8 if narrow else np.int16
    low = np.iinfo(dtype).min
    values = rng.integers(low, -low, (rows, each)).astype(dtype)
    words = [values.tobytes()[i : i + 8] for i in range(0, values.nbytes, 8)]
    if narrow and beats % 2:
        sent = np.concatenate([values, rng.integers(low, -low, (rows, 4)).astype(dtype)], axis=1)
        kept = np.concatenate([values, np.zeros((rows, 4), dtype)], axis=1)
    else:
        sent = kept = values
    words, want = (
        [int.from_bytes(one.tobytes()[i : i + 8], "little") for i in range(0, one.nbytes, 8)]
        for one in (sent, kept)
    )
    m = Module()
    m.submodules.spread = spread = Spread(CONFIG)
    m.submodules.pack = pack = Pack(CONFIG)
    connect(m, spread.values, pack.values)
    m.d.comb += [part.narrow.eq(narrow) for part in (spread, pack)] + [
        part.beats.eq(beats) for part in (spread, pack)
    ]
    chance, found, seen = random.Random(beats), [], []

    async def give(ctx):
        for word in words:
            while chance.random() < idle:
                await ctx.tick()
            ctx.set(spread.words.payload, word)
            ctx.set(spread.words.valid, 1)
            await ctx.tick().until(spread.words.ready)
            ctx.set(spread.words.valid, 0)

    async def take(ctx):
        while len(found) < len(want):
            ready = chance.random() >= idle
            ctx.set(pack.words.ready, int(ready))
            if ready and ctx.get(pack.words.valid):
                found.append(ctx.get(pack.words.payload))
            if ctx.get(spread.values.valid & spread.values.ready):
                seen.append([ctx.get(spread.values.payload[i]) for i in range(4)])
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(take)
    simulator.run()
    assert found == want
    assert seen == values.reshape(-1, 4).tolist()
