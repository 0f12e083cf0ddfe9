"""Convolutions and linears as windows over activations: what several tests walk over."""

from dataclasses import dataclass

import numpy as np

from rtl.compute.config import ArrayConfig
from rtl.compute.groups import scale_tiles

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
