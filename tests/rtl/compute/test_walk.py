"""Vectors of activations against windows cut out by numpy."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from rtl.compute.config import ArrayConfig
from rtl.compute.groups import scale_tiles
from rtl.compute.walk import Walk

CONFIG = ArrayConfig(rows=8, columns=8, lanes=64, d_max=8, accumulators=64, input_words=1024)
R, C = CONFIG.rows, CONFIG.columns


@dataclass(frozen=True)
class Conv:
    """A convolution, as an integer graph describes it."""

    channels: int
    outputs: int
    size: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    first_word: int = 3
    scale_group: int = 0

    @property
    def out(self):
        return tuple(
            (n + b + a - (k - 1) * d - 1) // s + 1
            for n, b, a, k, d, s in zip(
                self.size, self.before, self.after, self.kernel, self.dilation, self.stride,
                strict=True,
            )
        )  # fmt: skip

    def layer(self):
        pixel = -(-self.channels // C)
        row = pixel * self.size[1]
        group_outputs = self.outputs // self.groups
        inside = max(1, R // group_outputs) if self.groups > 1 else 1
        return {
            "blocks": -(-self.outputs // R),
            "block_groups": inside,
            "log2_group": (group_outputs if inside > 1 else R).bit_length() - 1,
            "group_blocks": -(-group_outputs // R),
            "group_inputs": self.channels // self.groups,
            "first_channel": 0,
            "channels": self.channels,
            "out_height": self.out[0],
            "out_width": self.out[1],
            "in_height": self.size[0],
            "in_width": self.size[1],
            "first_y": -self.before[0],
            "first_x": -self.before[1],
            "first_word": self.first_word - self.before[0] * row - self.before[1] * pixel,
            "stride_y": self.stride[0],
            "stride_x": self.stride[1],
            "stride_y_words": self.stride[0] * row,
            "stride_x_words": self.stride[1] * pixel,
            "kernel_y": self.kernel[0],
            "kernel_x": self.kernel[1],
            "dilation_y": self.dilation[0],
            "dilation_x": self.dilation[1],
            "dilation_y_words": self.dilation[0] * row,
            "dilation_x_words": self.dilation[1] * pixel,
            "pool": 0,
            "scale_tiles": scale_tiles(CONFIG, "conv", inputs=self.inputs, group=self.scale_group),
        }

    @property
    def inputs(self):
        """Of one output."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    def memory(self, x):
        """Activations [channels, height, width] as they lie in the buffer, filling not zero."""
        words = -(-self.channels // C)
        out = np.full((CONFIG.input_words, C), 99, np.int8)
        pixels = np.full((*self.size, words * C), 77, np.int8)
        pixels[..., : self.channels] = x.transpose(1, 2, 0)
        flat = pixels.reshape(-1, C)
        out[self.first_word : self.first_word + len(flat)] = flat
        return out

    def vectors(self, x):
        """Vectors [C] in the order of the walk.

        Each with its block, group and position, whether it is the first and the last one of its
        sum, whether that is one of a group with scales and the first and the last one there.
        """
        padded = np.pad(x, ((0, 0), *zip(self.before, self.after, strict=True)))
        per_group = self.channels // self.groups
        fields = self.layer()
        group = 0
        inputs = self.inputs
        sum_inputs = -(-min(self.scale_group or inputs, inputs) // C) * C
        for block in range(fields["blocks"]):
            for tile in range(0, inputs, C):
                for inner in range(fields["block_groups"]):
                    chosen = padded[(group + inner) * per_group :][:per_group]
                    for at in range(self.out[0] * self.out[1]):
                        oy, ox = divmod(at, self.out[1])
                        rows = oy * self.stride[0] + np.arange(self.kernel[0]) * self.dilation[0]
                        columns = ox * self.stride[1] + np.arange(self.kernel[1]) * self.dilation[1]
                        window = chosen[:, rows][:, :, columns].transpose(1, 2, 0).reshape(-1)
                        part = np.zeros(C, np.int8)
                        cut = window[tile : tile + C]
                        part[: len(cut)] = cut
                        row_ends = tile + C >= inputs
                        first = tile % sum_inputs == 0
                        last = row_ends or (tile + C) % sum_inputs == 0
                        last &= inner == fields["block_groups"] - 1
                        partial = (self.scale_group > 0, tile < sum_inputs, row_ends)
                        yield part, (block, inner, at, first, last, *partial)
            if fields["block_groups"] > 1:
                group += fields["block_groups"]
            elif (block + 1) % fields["group_blocks"] == 0:
                group += 1


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


CASES = {
    "linear": Conv(24, 16),
    "ragged linear": Conv(13, 8),
    "rows of a linear": Conv(20, 24, size=(7, 1)),
    "3x3": Conv(8, 8, size=(5, 4), kernel=(3, 3), before=(1, 1), after=(1, 1)),
    "3x3 of three channels": Conv(3, 16, size=(4, 5), kernel=(3, 3), before=(1, 1), after=(1, 1)),
    "strided": Conv(16, 8, size=(6, 7), kernel=(3, 3), stride=(2, 2), before=(1, 1), after=(0, 1)),
    "dilated": Conv(4, 8, size=(7, 6), kernel=(3, 2), dilation=(2, 3), before=(2, 0)),
    "depthwise": Conv(16, 16, size=(4, 4), kernel=(3, 3), before=(1, 1), after=(1, 1), groups=16),
    "grouped": Conv(12, 8, size=(3, 3), kernel=(2, 2), groups=2),
    "wide groups": Conv(16, 32, size=(2, 3), groups=2),
    "uneven channels": Conv(11, 8, size=(3, 3), kernel=(2, 2)),
}


#: A tile, several, a short one at the end, less in all than a group.
SCALE_GROUPS = [
    ("linear", 8),
    ("linear", 16),
    ("linear", 24),
    ("linear", 1000),
    ("ragged linear", 8),
    ("ragged linear", 13),
    ("rows of a linear", 8),
    ("rows of a linear", 16),
    ("3x3", 24),
    ("3x3 of three channels", 16),
    ("strided", 32),
    ("dilated", 8),
    ("depthwise", 8),
    ("depthwise", 9),
    ("grouped", 16),
    ("wide groups", 8),
    ("uneven channels", 16),
]


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
