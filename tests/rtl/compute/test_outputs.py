"""Output buffer: order, residual addition, filling."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.outputs import OutputBuffer

CONFIG = ArrayConfig(
    rows=8, columns=8, lanes=64, d_max=8, accumulators=64, scale_lanes=4, output_words=256
)
R = CONFIG.rows


def golden_sum(x, y, addition):
    own, other, shift, relu = (addition[n] for n in ("own", "other", "shift", "relu"))
    total = x.astype(np.int64) * own + y.astype(np.int64) * other
    return np.clip((total + (1 << shift - 1)) >> shift, 0 if relu else -128, 127)


def case(seed, blocks, positions, last_rows, first_word, add, unused=0):
    rng = np.random.default_rng(seed)
    words = rng.integers(-128, 128, (blocks, positions, R)).astype(np.int8)
    old = rng.integers(-128, 128, (positions, blocks + unused, R)).astype(np.int8)
    addition = {
        "own": int(rng.integers(-32767, 32768)),
        "other": int(rng.integers(-32767, 32768)),
        "shift": int(rng.integers(1, 20)),
        "relu": int(rng.integers(0, 2)),
        "enable": int(add),
    }
    new = words.transpose(1, 0, 2)
    if add:
        new = golden_sum(new, old[:, :blocks], addition)
    want = old.copy()
    want[:, :blocks] = new
    want[:, blocks - 1, last_rows:] = 0
    layer = {
        "blocks": blocks, "positions": positions, "pixel_words": blocks + unused,
        "last_rows": last_rows, "first_word": first_word, "addition": addition,
    }  # fmt: skip
    return layer, words.reshape(-1, R), old.reshape(-1, R), want.reshape(-1, R)


@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_words_find_their_places(idle):
    cases = [
        case(0, 3, 5, 8, 0, add=False),
        case(1, 2, 7, 3, 20, add=True),
        case(2, 1, 1, 8, 40, add=True),
        case(3, 4, 1, 1, 45, add=False),
        case(4, 3, 6, 8, 60, add=True),
        case(5, 3, 5, 6, 100, add=False, unused=1),
        case(6, 2, 4, 8, 140, add=True, unused=2),
    ]
    dut = OutputBuffer(CONFIG)
    chance = random.Random(1)
    times = []

    def packed(word):
        return int.from_bytes(np.asarray(word, np.int8).tobytes(), "little")

    async def give(ctx):
        await ctx.tick().repeat(70)
        for _, words, _, _ in cases:
            for word in words:
                while chance.random() < idle:
                    await ctx.tick()
                ctx.set(dut.words.payload, [int(v) for v in word])
                ctx.set(dut.words.valid, 1)
                await ctx.tick().until(dut.words.ready)
                ctx.set(dut.words.valid, 0)

    async def run(ctx):
        for layer, _, old, _ in cases:
            for number, word in enumerate(old):
                fields = {"enable": 1, "word": layer["first_word"] + number, "data": packed(word)}
                ctx.set(dut.load, fields)
                await ctx.tick()
        ctx.set(dut.load.enable, 0)
        for layer, words, _, want in cases:
            ctx.set(dut.layer.payload, layer)
            ctx.set(dut.layer.valid, 1)
            cycles = 0
            while True:
                cycles += 1
                ready = ctx.get(dut.layer.ready)
                await ctx.tick()
                if ready:
                    break
            ctx.set(dut.layer.valid, 0)
            times.append((cycles, len(words), layer["addition"]["enable"]))
            for number, word in enumerate(want):
                ctx.set(dut.read, layer["first_word"] + number)
                await ctx.tick()
                assert ctx.get(dut.data) == packed(word), (layer, number)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(run)
    simulator.run()
    if idle == 0:
        for cycles, words, add in times[1:]:
            assert cycles <= words * (2 if add else 1) + 5
