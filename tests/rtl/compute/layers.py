"""Layers with random weights, and a run of the engine on them that must give numpy's outputs."""

import random

import numpy as np
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.engine import Engine
from vq.container.order import split, to_stream
from vq.integer import requantize
from vq.integer.groups import partial_reach, reach, rescale

CONFIG = ArrayConfig(
    rows=8, columns=8, lanes=64, d_max=8, accumulators=64, scale_lanes=4, input_words=1024
)
R, C, LANES = CONFIG.rows, CONFIG.columns, CONFIG.lanes


def weight_stream(weight, d, axis):
    grid = split(weight, d, axis)
    flat = to_stream(grid, R // d if axis == "out" else R).reshape(-1)
    flat = np.pad(flat, (0, -len(flat) % LANES))
    along = axis == "out"
    return flat.reshape(-1, LANES), {
        "log2_d": 0 if along else d.bit_length() - 1,
        "outputs": grid.shape[0] * (d if along else 1),
        "columns": grid.shape[1],
        "identity": 0,
        "tiles": 0,
    }


class Layer:
    """A convolution with random weights, and everything the engine needs for it."""

    def __init__(self, conv, seed, d=1, axis="in"):
        rng = np.random.default_rng(seed)
        self.conv = conv
        self.x = rng.integers(-128, 128, (conv.channels, *conv.size)).astype(np.int8)
        inputs = conv.inputs
        self.weight = rng.integers(-127, 128, (conv.outputs, inputs)).astype(np.int8)
        self.bias = rng.integers(-30_000, 30_000, conv.outputs)
        self.multiplier = rng.integers(-32767, 32768, conv.outputs)
        self.shift = np.full(conv.outputs, 26 + inputs.bit_length() // 2)
        self.relu = bool(rng.integers(0, 2))
        self.beats, self.tile = weight_stream(self.weight, d, axis)
        self.positions = conv.out[0] * conv.out[1]
        if conv.scale_group:
            self._make_groups(rng)

    def _make_groups(self, rng):
        """Random scales, as great as the accumulators allow."""
        partial = partial_reach(self.weight, self.conv.scale_group)
        self.group_shift = int(rng.choice([0, 1, 8, 15, 19]))
        most = min(32767, (2**29 << self.group_shift) // int(partial.sum(axis=1).max()))
        self.scale = rng.integers(-most, most + 1, partial.shape).astype(np.int16)
        self.scale[0] = -most
        total = reach(self.scale, self.group_shift, partial)
        assert total.max() < 2**30
        self.bias = rng.integers(-1, 2, self.conv.outputs) * (total // 8)
        # Outputs are spread over int8 whatever the scales are.
        self.multiplier = np.where(self.multiplier < 0, -1, 1) * (abs(self.multiplier) | 1 << 14)
        greatest = np.abs(self.totals() + self.bias[:, None]).max(axis=1)
        self.shift = np.array([int(t).bit_length() + 15 - 7 for t in greatest])

    def scales(self):
        """One payload for each block and group; outputs that there are not have any scale."""
        if not self.conv.scale_group:
            return
        filled = np.pad(self.scale, ((0, -len(self.scale) % R), (0, 0)), constant_values=-32767)
        for first in range(0, len(filled), R):
            for column in filled[first : first + R].T:
                yield {
                    "scales": [int(s) for s in column],
                    "shift": self.group_shift,
                    "positions": self.positions,
                }

    def total(self, o, window):
        """Accumulator of output ``o``, without its bias."""
        products = window * self.weight[o].astype(np.int64)
        if not self.conv.scale_group:
            return products.sum()
        starts = np.arange(0, len(products), self.conv.scale_group)
        partial = np.add.reduceat(products, starts)
        return rescale(partial, self.scale[o], self.group_shift).sum()

    def scalings(self):
        for first in range(0, self.conv.outputs, R):
            rows = range(first, min(first + R, self.conv.outputs))
            yield {
                "outputs": [
                    {
                        "bias": int(self.bias[o]),
                        "multiplier": int(self.multiplier[o]),
                        "shift": int(self.shift[o]),
                    }
                    for o in rows
                ] + [{"bias": 0, "multiplier": 0, "shift": 1}] * (R - len(rows)),
                "relu": int(self.relu),
                "positions": self.positions,
            }  # fmt: skip

    def totals(self):
        """Accumulators [O, positions], without their biases."""
        conv = self.conv
        padded = np.pad(self.x, ((0, 0), *zip(conv.before, conv.after, strict=True)))
        per_group, group_outputs = conv.channels // conv.groups, conv.outputs // conv.groups
        totals = np.zeros((conv.outputs, self.positions), np.int64)
        for o in range(conv.outputs):
            chosen = padded[o // group_outputs * per_group :][:per_group].astype(np.int64)
            for at in range(self.positions):
                oy, ox = divmod(at, conv.out[1])
                rows = oy * conv.stride[0] + np.arange(conv.kernel[0]) * conv.dilation[0]
                columns = ox * conv.stride[1] + np.arange(conv.kernel[1]) * conv.dilation[1]
                window = chosen[:, rows][:, :, columns].transpose(1, 2, 0).reshape(-1)
                totals[o, at] = self.total(o, window)
        return totals

    def words(self):
        """Outputs in the order of the engine; what lies behind the last output is None."""
        conv = self.conv
        out = requantize(
            self.totals() + self.bias[:, None],
            self.multiplier[:, None].astype(np.int16),
            self.shift[:, None].astype(np.uint8),
            relu=self.relu,
        )
        for first in range(0, conv.outputs, R):
            for at in range(self.positions):
                yield out[first : first + R, at]


def run(layers, idle=0.0, seed=0, scales_idle=None):
    """Words of all layers, and counts of busy and waiting cycles from first to last word."""
    scales_idle = idle if scales_idle is None else scales_idle
    dut = Engine(CONFIG)
    chance = random.Random(seed)
    total = sum(-(-layer.conv.outputs // R) * layer.positions for layer in layers)
    found, counts = [], {"busy": 0, "awaits_weights": 0, "awaits_vectors": 0, "blocked": 0}

    def feeder(port, items, put, idle=idle):
        async def feed(ctx):
            for item in items:
                while chance.random() < idle:
                    await ctx.tick()
                put(ctx, item)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)

        return feed

    memory = np.zeros((CONFIG.input_words, C), np.int8)
    at = 0
    windows = []
    for layer in layers:  # every layer's activations have a place of their own
        fields = layer.conv.layer()
        used = layer.conv.memory(layer.x)
        words = -(-layer.conv.channels // C) * layer.conv.size[0] * layer.conv.size[1]
        start = layer.conv.first_word
        memory[at : at + words] = used[start : start + words]
        windows.append(fields | {"first_word": fields["first_word"] - start + at})
        at += words

    async def take(ctx):
        for number, word in enumerate(memory[:at]):
            value = int.from_bytes(word.tobytes(), "little")
            ctx.set(dut.write, {"enable": 1, "word": number, "data": value})
            await ctx.tick()
        ctx.set(dut.write.enable, 0)
        started, quiet = False, 0
        while len(found) < total:
            quiet += 1
            assert quiet < 5000, f"nothing comes after {len(found)} of {total} words"
            ready = chance.random() >= idle
            ctx.set(dut.words.ready, int(ready))
            flags = {name: ctx.get(getattr(dut, name)) for name in counts}
            assert sum(flags.values()) == 1
            started |= bool(flags["busy"])
            for name, value in flags.items():
                counts[name] += value * started
            if ready and ctx.get(dut.words.valid):
                quiet = 0
                found.append(np.array([ctx.get(dut.words.payload[o]) for o in range(R)]))
            await ctx.tick()
        await ctx.tick().repeat(4)

    async def windows_in(ctx):
        await ctx.tick().repeat(at + 1)  # activations first
        await feeder(dut.windows, windows, lambda c, f: c.set(dut.windows.payload, f))(ctx)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    beats = [beat for layer in layers for beat in layer.beats]
    scalings = [s for layer in layers for s in layer.scalings()]
    scales = [s for layer in layers for s in layer.scales()]
    tiles = [layer.tile for layer in layers]
    for process in (
        windows_in,
        feeder(dut.tiles, tiles, lambda c, f: c.set(dut.tiles.payload, f)),
        feeder(dut.weights, beats, lambda c, b: c.set(dut.weights.p.weights, [int(v) for v in b])),
        feeder(dut.scaling, scalings, lambda c, s: c.set(dut.scaling.payload, s)),
        feeder(dut.scales, scales, lambda c, s: c.set(dut.scales.payload, s), scales_idle),
    ):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(take)
    simulator.run()
    return found, counts


def check(layers, idle, seed=0, **options):
    found, counts = run(layers, idle, seed, **options)
    wanted = [word for layer in layers for word in layer.words()]
    assert len(found) == len(wanted)
    for word, want in zip(found, wanted, strict=True):
        assert word[: len(want)].tolist() == want.tolist()
    return counts
