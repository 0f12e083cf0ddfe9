"""Weight tiles against the container's stream order."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rtl.compute.config import ArrayConfig
from rtl.compute.tile import WeightTile
from vq.container.order import split, to_stream

CONFIG = ArrayConfig(rows=16, columns=8, lanes=64, d_max=8, scale_lanes=4)
R, C = CONFIG.rows, CONFIG.columns
#: Higher and wider than square, one beat a tile and more, columns narrower and wider than a beat.
ARRAYS = [
    CONFIG,
    ArrayConfig(rows=8, columns=8, lanes=64, d_max=8, scale_lanes=4),
    ArrayConfig(rows=8, columns=16, lanes=128, d_max=16, scale_lanes=4),
    ArrayConfig(rows=16, columns=16, lanes=64, d_max=16, scale_lanes=4),
    ArrayConfig(rows=8, columns=8, lanes=64, d_max=1, scale_lanes=4),
]


def stream_of(weight, d, axis, config=CONFIG):
    """Weights [O, I] as the decoder delivers them: [n, lanes] with filling, and its geometry."""
    rows, lanes = config.rows, config.lanes
    grid = split(weight, d, axis)  # [Go, Gi, d]
    flat = to_stream(grid, rows // d if axis == "out" else rows).reshape(-1)
    flat = np.pad(flat, (0, -len(flat) % lanes))
    along = axis == "out"
    fields = {
        "log2_d": 0 if along else d.bit_length() - 1,
        "outputs": grid.shape[0] * (d if along else 1),
        "columns": grid.shape[1],
        "identity": 0,
        "tiles": 0,
    }
    return flat.reshape(-1, lanes), fields


def tiles_of(weight, rows, columns, inputs):
    """Tiles [rows, columns] as they should come; outside the matrix is None."""
    for first in range(0, weight.shape[0], rows):
        for at in range(0, inputs, columns):
            yield weight[first : first + rows, at : at + columns]


def moves_of(fields, config):
    """Cycles in which weights of a layer enter the tile, if nothing waits."""
    d, inputs, moves = 1 << fields["log2_d"], fields["columns"] << fields["log2_d"], 0
    for first in range(0, fields["outputs"], config.rows):
        left = min(config.rows, fields["outputs"] - first)
        whole = left == config.rows
        at_once = config.rows * (inputs & -inputs) if whole else d * (left & -left)
        moves += left * inputs // min(config.lanes, at_once)
    return moves


def require_tiles(found, wanted):
    assert len(found) == len(wanted)
    for tile, want in zip(found, wanted, strict=True):
        assert (tile[: want.shape[0], : want.shape[1]] == want).all()


def run(layers, idle=0.0, seed=0, config=CONFIG):
    dut = WeightTile(config)
    rows, columns = config.rows, config.columns
    chance = random.Random(seed)
    found, cycles = [], [0]
    beats = [beat for beats, _ in layers for beat in beats]
    fields = [f for _, f in layers]
    total = sum(
        -(-f["outputs"] // rows) * -(-(f["columns"] << f["log2_d"]) // columns) for f in fields
    )

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
                found.append(np.array([[tile[o][c] for c in range(columns)] for o in range(rows)]))
        await ctx.tick().repeat(4)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (beats_in, layers_in):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return found, cycles[0]


@pytest.mark.parametrize(
    ("axis", "d"), [("in", 1), ("in", 2), ("in", 4), ("in", 8), ("out", 2), ("out", 4), ("out", 8)]
)
@pytest.mark.parametrize("shape", [(16, 16), (21, 24), (5, 3), (3, 20), (32, 9), (37, 27)])
def test_tiles_hold_the_matrix(axis, d, shape):
    rng = np.random.default_rng(d)
    weight = rng.integers(-127, 128, shape).astype(np.int8)
    other = rng.integers(-127, 128, (R, C)).astype(np.int8)
    layers = [stream_of(weight, d, axis), stream_of(other, 1, "in")]
    found, _ = run(layers, idle=0.3, seed=d)
    require_tiles(found, [*tiles_of(weight, R, C, shape[1]), other])


@st.composite
def matrices(draw, config):
    """Shape, d and axis of a layer; its rows of weights as even or odd as can be."""
    axis = draw(st.sampled_from(["in", "out"]))
    longest = config.d_max if axis == "in" else min(config.d_max, config.rows)
    d = 1 << draw(st.integers(0, longest.bit_length() - 1))
    inputs = draw(st.integers(1, 9)) << draw(st.integers(0, 3))
    return (draw(st.integers(1, 40)), inputs), d, axis


# Shrinking would take minutes.
@settings(derandomize=True, deadline=None, max_examples=6, phases=[Phase.generate])
@given(data=st.data(), seed=st.integers(0, 99), idle=st.sampled_from([0.0, 0.0, 0.3]))
@pytest.mark.parametrize(
    "config", ARRAYS, ids=lambda a: f"{a.rows}x{a.columns}x{a.lanes}d{a.d_max}"
)
def test_layers_after_one_another_to_the_cycle(config, data, seed, idle):
    drawn = data.draw(st.lists(matrices(config), min_size=1, max_size=5))
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-127, 128, shape).astype(np.int8) for shape, _, _ in drawn]
    layers = [
        stream_of(weight, d, axis, config)
        for weight, (_, d, axis) in zip(weights, drawn, strict=True)
    ]
    found, cycles = run(layers, idle, seed, config)
    require_tiles(
        found, [t for w in weights for t in tiles_of(w, config.rows, config.columns, w.shape[1])]
    )
    if idle == 0:
        assert cycles == sum(moves_of(fields, config) for _, fields in layers) + 1


@pytest.mark.parametrize(
    ("shape", "d", "axis", "cycles"),
    [
        ((32, 172), 1, "in", 32 * 172 // 64),  # 172 is 43 times 4: a beat of 64 weights
        ((32, 27), 1, "in", 2 * 27),  # a column of 16
        ((32, 25), 2, "in", 2 * 13),  # 25 and one of filling: a column of 32
        ((32, 27), 4, "out", 2 * 27),
        ((12, 16), 1, "in", 3 * 16),  # 4 outputs at once
        ((10, 16), 2, "in", 5 * 8),
        ((7, 16), 4, "in", 7 * 4),
    ],
)
def test_as_many_as_fit_are_written_at_once(shape, d, axis, cycles):
    weight = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    found, counted = run([stream_of(weight, d, axis)])
    require_tiles(found, list(tiles_of(weight, R, C, shape[1])))
    assert counted == cycles + 1


@pytest.mark.parametrize("d", [1, 4, 8])
def test_whole_blocks_take_a_beat_per_cycle(d):
    weight = np.random.default_rng(0).integers(-127, 128, (4 * R, 8 * C)).astype(np.int8)
    beats, fields = stream_of(weight, d, "in")
    found, cycles = run([(beats, fields)])
    assert len(found) == 32
    assert cycles <= len(beats) + 4


def test_identity_needs_no_weights():
    parts = R // C  # tiles of a block, each with its share of the diagonal
    identity = {"log2_d": 0, "outputs": 2 * R, "columns": R, "identity": 1, "tiles": 2 * parts}
    weight = np.random.default_rng(0).integers(-127, 128, (R, C)).astype(np.int8)
    found, _ = run([([], identity), stream_of(weight, 4, "in"), ([], identity)])
    diagonal = [np.eye(R)[:, C * i : C * (i + 1)] for i in range(parts)]
    for tile, wanted in zip(found, [*2 * diagonal, weight, *2 * diagonal], strict=True):
        assert (tile == wanted).all()
