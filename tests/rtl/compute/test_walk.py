"""Vectors of activations against windows cut out by numpy."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.walk import Walk
from tests.rtl.compute.windows import CASES, CONFIG, SCALE_GROUPS, C, Conv


def run(layers, memories, counts, idle):
    """Vectors of all layers, ``counts`` of each, and the cycles between the first and the last."""
    dut = Walk(CONFIG)
    chance = random.Random(0)
    ends = [*np.cumsum(counts).tolist(), -1]
    found, times = [], []

    async def give(ctx):
        for layer in layers:
            ctx.set(dut.layer.payload, layer)
            ctx.set(dut.layer.valid, 1)
            await ctx.tick().until(dut.layer.ready)
        ctx.set(dut.layer.valid, 0)

    async def take(ctx):
        vector, cycle, quiet = np.zeros(C, np.int8), 0, 0
        number = 0
        while quiet < 50:
            ready = chance.random() >= idle
            ctx.set(dut.pieces.ready, int(ready))
            cycle += 1
            quiet += 1
            if ready and ctx.get(dut.pieces.valid):
                quiet = 0
                piece = ctx.get(dut.pieces.payload)
                if piece.begins:
                    vector = np.zeros(C, np.int8)
                if piece.count:
                    word = memories[number][piece.word]
                    source = word[piece.from_byte : piece.from_byte + piece.count]
                    assert len(source) == piece.count
                    vector[piece.lane : piece.lane + piece.count] = source
                if piece.ends:
                    tag = piece.tag
                    flags = (
                        tag.first, tag.last, tag.partial, tag.first_partial, tag.last_partial,
                    )  # fmt: skip
                    facts = (tag.block, tag.group, tag.at, *map(bool, flags))
                    found.append((vector.copy(), facts, bool(piece.new_tile)))
                    times.append(cycle)
                    if len(found) == ends[number]:
                        number += 1
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(give, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return found, times[-1] - times[0]


@pytest.mark.parametrize("idle", [0.0, 0.4])
@pytest.mark.parametrize("name", CASES)
def test_vectors_are_windows(name, idle):
    run_cases([CASES[name]], idle)


@pytest.mark.parametrize(("name", "group"), SCALE_GROUPS)
def test_sums_end_with_groups_of_scales(name, group):
    scaled = replace(CASES[name], scale_group=group)
    run_cases([scaled, CASES["dilated"], scaled, scaled], 0.2)


def test_layers_follow_one_another():
    run_cases([CASES["strided"], CASES["depthwise"], CASES["linear"], CASES["dilated"]], 0.2)


def test_whole_words_take_a_cycle_per_vector():
    vectors, cycles = run_cases([CASES["3x3"], CASES["linear"], CASES["strided"]], 0.0)
    assert cycles == len(vectors) - 1


def run_cases(cases, idle):
    """Check what comes for some layers; return it as :func:`run` does."""
    rng = np.random.default_rng(0)
    inputs = [rng.integers(-128, 128, (c.channels, *c.size)).astype(np.int8) for c in cases]
    layers = [list(c.vectors(x)) for c, x in zip(cases, inputs, strict=True)]
    memories = [c.memory(x) for c, x in zip(cases, inputs, strict=True)]
    fields = [c.layer() for c in cases]
    found, cycles = run(fields, memories, [len(v) for v in layers], idle)
    wanted = [vector for layer in layers for vector in layer]
    assert len(found) == len(wanted)
    for (vector, facts, new), (want, want_facts) in zip(found, wanted, strict=True):
        assert facts == want_facts
        assert (vector == want).all()
        assert new == (want_facts[2] == 0 and want_facts[1] == 0)
    return found, cycles


def single(fields, memory, count, idle=0.2):
    base = Conv(8, 8).layer() | fields
    found, _ = run([base], [memory], [count], idle)
    assert not any(facts[5] for _, facts, _ in found)
    return [(vector, facts[:5], new) for vector, facts, new in found]


@pytest.mark.parametrize(("channels", "before"), [(16, 8), (12, 4), (5, 0), (16, 11), (9, 13)])
def test_shortcut_moves_channels_and_skips_positions(channels, before):
    conv = Conv(channels, 32, size=(5, 4), stride=(2, 2))
    x = np.random.default_rng(0).integers(-128, 128, (channels, 5, 4)).astype(np.int8)
    fields = conv.layer() | {"group_inputs": C, "first_channel": -before, "group_blocks": 1}
    found = single(fields, conv.memory(x), 4 * 6)
    wide = np.zeros((32, 3, 2), np.int8)
    kept = x[:, ::2, ::2][: 32 - before]
    wide[before : before + channels] = kept
    for number, (vector, (block, group, at, first, last), _) in enumerate(found):
        assert (block, group, at) == (number // 6, 0, number % 6) and first and last
        assert (vector == wide[block * C : block * C + C, at // 2, at % 2]).all()
    assert len(found) == 24


def test_pooling_adds_all_positions_to_one():
    conv = Conv(16, 16, size=(3, 4))
    x = np.random.default_rng(0).integers(-128, 128, (16, 3, 4)).astype(np.int8)
    fields = conv.layer() | {"group_inputs": C, "group_blocks": 1, "pool": 1}
    found = single(fields, conv.memory(x), 24)
    for number, (vector, facts, new) in enumerate(found):
        block, p = divmod(number, 12)
        assert facts == (block, 0, 0, p == 0, p == 11) and new == (p == 0)
        assert (vector == x[block * C : block * C + C, p // 4, p % 4]).all()
    assert len(found) == 24
