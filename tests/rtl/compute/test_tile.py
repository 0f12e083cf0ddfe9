"""Weight tiles against the container's stream order."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.tile import WeightTile
from vq.container.order import split, to_stream

CONFIG = ArrayConfig(rows=16, columns=8, lanes=64, d_max=8, scale_lanes=4)
R, C, LANES = CONFIG.rows, CONFIG.columns, CONFIG.lanes


def stream_of(weight, d, axis, rows):
    """Weights [O, I] as the decoder delivers them: [n, LANES] with filling, and its geometry."""
    grid = split(weight, d, axis)  # [Go, Gi, d]
    flat = to_stream(grid, rows // d if axis == "out" else rows).reshape(-1)
    flat = np.pad(flat, (0, -len(flat) % LANES))
    along = axis == "out"
    fields = {
        "log2_d": 0 if along else d.bit_length() - 1,
        "outputs": grid.shape[0] * (d if along else 1),
        "columns": grid.shape[1],
        "identity": 0,
        "tiles": 0,
    }
    return flat.reshape(-1, LANES), fields


def tiles_of(weight, rows, columns, inputs):
    """Tiles [rows, columns] as they should come; outside the matrix is None."""
    for first in range(0, weight.shape[0], rows):
        for at in range(0, inputs, columns):
            yield weight[first : first + rows, at : at + columns]


def run(layers, idle=0.0, seed=0):
    dut = WeightTile(CONFIG)
    chance = random.Random(seed)
    found, cycles = [], [0]
    beats = [beat for beats, _ in layers for beat in beats]
    fields = [f for _, f in layers]
    total = sum(-(-f["outputs"] // R) * -(-(f["columns"] << f["log2_d"]) // C) for f in fields)

    async def feed(ctx, port, items, put):
        for item in items:
            while chance.random() < idle:
                await ctx.tick()
            put(ctx, item)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    def put_beat(ctx, item):
        ctx.set(dut.beats.payload.weights, [int(v) for v in item])

    async def beats_in(ctx):
        await feed(ctx, dut.beats, beats, put_beat)

    async def layers_in(ctx):
        await feed(ctx, dut.layer, fields, lambda c, f: c.set(dut.layer.payload, f))

    async def take(ctx):
        while len(found) < total:
            cycles[0] += 1
            taken = ctx.get(dut.full) and chance.random() >= idle
            ctx.set(dut.take, int(taken))
            await ctx.tick()
            ctx.set(dut.take, 0)
            if taken:
                tile = ctx.get(dut.weights)
                found.append(np.array([[tile[o][c] for c in range(C)] for o in range(R)]))
        await ctx.tick().repeat(4)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (beats_in, layers_in):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return found, cycles[0]


@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("d", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "shape", [(16, 16), (32, 32), (21, 24), (5, 3), (3, 20), (48, 9), (37, 27)]
)
def test_tiles_hold_the_matrix(axis, d, shape):
    rng = np.random.default_rng(d)
    weight = rng.integers(-127, 128, shape).astype(np.int8)
    other = rng.integers(-127, 128, (R, C)).astype(np.int8)
    layers = [stream_of(weight, d, axis, R), stream_of(other, 1, "in", R)]
    wanted = [*tiles_of(weight, R, C, shape[1]), other]
    found, _ = run(layers, idle=0.3, seed=d)
    assert len(found) == len(wanted)
    for tile, want in zip(found, wanted, strict=True):
        assert (tile[: want.shape[0], : want.shape[1]] == want).all()


@pytest.mark.parametrize("d", [1, 4, 8])
def test_whole_blocks_take_a_beat_per_cycle(d):
    weight = np.random.default_rng(0).integers(-127, 128, (4 * R, 8 * C)).astype(np.int8)
    beats, fields = stream_of(weight, d, "in", R)
    found, cycles = run([(beats, fields)])
    assert len(found) == 32
    assert cycles <= len(beats) + 4


def test_identity_needs_no_weights():
    parts = R // C  # tiles of a block, each with its share of the diagonal
    identity = {"log2_d": 0, "outputs": 2 * R, "columns": R, "identity": 1, "tiles": 2 * parts}
    weight = np.random.default_rng(0).integers(-127, 128, (R, C)).astype(np.int8)
    found, _ = run([([], identity), stream_of(weight, 4, "in", R), ([], identity)])
    diagonal = [np.eye(R)[:, C * i : C * (i + 1)] for i in range(parts)]
    for tile, wanted in zip(found, [*2 * diagonal, weight, *2 * diagonal], strict=True):
        assert (tile == wanted).all()
