"""Walk: which activations each vector of the array is made of, without ever copying a window."""

from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.compute.accumulate import tag_layout
from rtl.compute.config import ArrayConfig
from rtl.compute.groups import SCALE_TILES_BITS

__all__ = ["WALK_LAYER", "Walk", "piece_layout"]

#: How a layer's inputs lie and how a window moves over them. Activations lie in the buffer as
#: ``[height][width][pixel]``, a pixel being whole words of ``columns`` bytes, channels in order.
#: A linear is a convolution of 1x1 over a picture of one column. Differences in words are given
#: and not multiplied here: ``row_words`` from a row to the next one of the window's steps, etc.
WALK_LAYER = data.StructLayout(
    {
        "blocks": 16,  # of outputs
        "block_groups": 8,  # groups in a block, each a pass of its own over all positions
        "log2_group": 3,  # outputs of a group in a block; of the whole block if that is one group
        "group_blocks": 16,  # blocks in a group
        "group_inputs": 16,  # channels of a group
        "first_channel": signed(17),  # of the first group; may lie before the first one there is
        "channels": 16,  # that there are; others read as zero
        "out_height": 16,
        "out_width": 16,
        "in_height": 16,
        "in_width": 16,
        "first_y": signed(17),  # of the first window, minus the padding
        "first_x": signed(17),
        "first_word": signed(25),
        "stride_y": 16,
        "stride_x": 16,
        "stride_y_words": 24,
        "stride_x_words": 24,
        "kernel_y": 8,
        "kernel_x": 8,
        "dilation_y": 16,
        "dilation_x": 16,
        "dilation_y_words": 24,
        "dilation_x_words": 24,
        "pool": 1,  # all positions add up to one
        # Tiles of a group of inputs that has scales of its own, 0 if there are none or with `pool`.
        # The last group of a row may have less.
        "scale_tiles": SCALE_TILES_BITS,
    }
)


def piece_layout(config: ArrayConfig) -> data.StructLayout:
    """Part of a vector that lies in one word of the buffer."""
    lane = range(config.columns)
    return data.StructLayout(
        {
            "word": range(config.input_words),
            "from_byte": lane,  # of the word, goes to ...
            "lane": lane,
            "count": range(config.columns + 1),  # bytes; all other lanes keep what they have
            "begins": 1,  # first piece: all other lanes are zero
            "ends": 1,  # last piece of its vector
            "new_tile": 1,  # first vector of its tile
            "layer_ends": 1,  # last vector of its layer
            "tag": tag_layout(config),
        }
    )


class Walk(wiring.Component):
    """Walk over blocks of outputs, tiles, groups and positions; give the pieces of every vector.

    A tile is ``columns`` successive weights of a row: they lie in one tap of the window if its
    channels are whole words, and a vector then is one piece. Otherwise a piece ends with the tap
    or with the word, and a vector takes as many cycles as it has pieces.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(WALK_LAYER))
        Taken with its last piece. All counts must be at least 1, and out_height times out_width
        at most ``config.accumulators`` unless ``pool``.
    pieces : Out(stream.Signature(piece_layout(config)))
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(WALK_LAYER)),
                "pieces": Out(stream.Signature(piece_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        layer = self.layer.payload
        log2 = config.columns.bit_length() - 1
        step = Signal()  # a piece enters the output register
        m.d.comb += step.eq(self.layer.valid & (~self.pieces.valid | self.pieces.ready))

        # Inside a vector: tap and channel; where the tile began, for the next vector.
        walk = data.StructLayout(
            {
                "ky": 8,
                "kx": 8,
                "channel": 16,
                "y": unsigned(17),
                "x": unsigned(17),
                "y_words": unsigned(25),
                "x_words": unsigned(25),
            }
        )
        now, begin, after = Signal(walk), Signal(walk), Signal(walk)
        lane = Signal(range(config.columns))

        # Around it: position, group, tile, block.
        oy, ox = Signal(16), Signal(16)
        y, x = Signal(signed(18)), Signal(signed(18))
        y_words, x_words = Signal(signed(26)), Signal(signed(26))
        at = Signal(range(config.accumulators))
        group, group_block, block = Signal(8), Signal(16), Signal(16)
        channel_base, block_base = Signal(signed(18)), Signal(signed(18))
        first_tile = Signal(init=1)  # of a sum
        scale_tile = Signal(SCALE_TILES_BITS)
        first_partial = Signal(init=1)
        vector_begins = Signal(init=1)

        # A fresh layer starts from its own first values without losing a cycle.
        fresh = Signal(init=1)
        base = Mux(fresh, layer.first_channel, channel_base)
        row_y, row_x = Mux(fresh, layer.first_y, y), Mux(fresh, layer.first_x, x)

        channel = Signal(signed(19))
        m.d.comb += channel.eq(base + now.channel)
        byte = channel[:log2]
        left_lanes = config.columns - lane
        left_channels = (layer.group_inputs - now.channel)[:17]
        left_bytes = config.columns - byte
        length = _least(_least(left_lanes, left_bytes), left_channels)
        there = Signal(signed(20))
        m.d.comb += there.eq(layer.channels - channel)

        tap_ends = length == left_channels
        kx_ends = now.kx == layer.kernel_x - 1
        ky_ends = now.ky == layer.kernel_y - 1
        inputs_end = tap_ends & kx_ends & ky_ends
        vector_ends = Signal()
        m.d.comb += [
            vector_ends.eq((length == left_lanes) | inputs_end),
            after.eq(now),
        ]
        with m.If(~tap_ends):
            m.d.comb += after.channel.eq(now.channel + length)
        with m.Elif(~kx_ends):
            m.d.comb += [
                after.channel.eq(0),
                after.kx.eq(now.kx + 1),
                after.x.eq(now.x + layer.dilation_x),
                after.x_words.eq(now.x_words + layer.dilation_x_words),
            ]
        with m.Elif(~ky_ends):
            m.d.comb += [
                after.channel.eq(0),
                after.kx.eq(0),
                after.x.eq(0),
                after.x_words.eq(0),
                after.ky.eq(now.ky + 1),
                after.y.eq(now.y + layer.dilation_y),
                after.y_words.eq(now.y_words + layer.dilation_y_words),
            ]
        with m.Else():
            m.d.comb += after.eq(0)

        ox_ends = ox == layer.out_width - 1
        oy_ends = oy == layer.out_height - 1
        positions_end = ox_ends & oy_ends
        first_position = (ox == 0) & (oy == 0)
        groups_end = group == layer.block_groups - 1
        tile_ends = positions_end & groups_end
        partial = layer.scale_tiles != 0
        sums_end = inputs_end | (partial & (scale_tile == layer.scale_tiles - 1))
        group_ends = group_block == layer.group_blocks - 1
        blocks_end = block == layer.blocks - 1

        in_y, in_x = Signal(signed(20)), Signal(signed(20))
        m.d.comb += [
            in_y.eq(row_y + now.y),
            in_x.eq(row_x + now.x),
        ]
        inside = (
            (in_y >= 0)
            & (in_y < layer.in_height)
            & (in_x >= 0)
            & (in_x < layer.in_width)
            & (channel >= 0)
            & (there > 0)
        )
        word = Signal(signed(28))
        m.d.comb += word.eq(
            layer.first_word + y_words + x_words + now.y_words + now.x_words + (channel >> log2)
        )

        with m.If(self.pieces.ready):
            m.d.sync += self.pieces.valid.eq(0)
        tag = self.pieces.p.tag
        with m.If(step):
            m.d.sync += [
                self.pieces.valid.eq(1),
                self.pieces.p.word.eq(word),
                self.pieces.p.from_byte.eq(byte),
                self.pieces.p.lane.eq(lane),
                self.pieces.p.count.eq(Mux(inside, _least(length, there[:17]), 0)),
                self.pieces.p.begins.eq(vector_begins),
                self.pieces.p.ends.eq(vector_ends),
                self.pieces.p.new_tile.eq(first_position & (group == 0)),
                self.pieces.p.layer_ends.eq(self.layer.ready),
                tag.at.eq(Mux(layer.pool, 0, at)),
                tag.first.eq(first_tile & (~layer.pool | first_position)),
                tag.last.eq(sums_end & groups_end & (~layer.pool | positions_end)),
                tag.partial.eq(partial),
                tag.first_partial.eq(first_partial),
                tag.last_partial.eq(inputs_end),
                tag.group.eq(group),
                tag.log2_group.eq(layer.log2_group),
                tag.block.eq(block),
                fresh.eq(0),
                channel_base.eq(base),
                vector_begins.eq(vector_ends),
                now.eq(after),
                lane.eq(lane + length),
            ]
            with m.If(fresh):
                m.d.sync += [y.eq(row_y), x.eq(row_x), block_base.eq(base)]
            with m.If(vector_ends):
                m.d.sync += [
                    now.eq(begin),
                    lane.eq(0),
                    at.eq(at + 1),
                    ox.eq(ox + 1),
                    x.eq(row_x + layer.stride_x),
                    x_words.eq(x_words + layer.stride_x_words),
                ]
                with m.If(ox_ends):
                    m.d.sync += [
                        ox.eq(0),
                        x.eq(layer.first_x),
                        x_words.eq(0),
                        oy.eq(oy + 1),
                        y.eq(row_y + layer.stride_y),
                        y_words.eq(y_words + layer.stride_y_words),
                    ]
                with m.If(positions_end):
                    m.d.sync += [
                        at.eq(0),
                        oy.eq(0),
                        y.eq(layer.first_y),
                        y_words.eq(0),
                        group.eq(group + 1),
                        channel_base.eq(base + layer.group_inputs),
                    ]
                with m.If(tile_ends):
                    m.d.sync += [
                        group.eq(0),
                        channel_base.eq(Mux(fresh, base, block_base)),
                        now.eq(after),
                        begin.eq(after),
                        first_tile.eq(sums_end),
                        scale_tile.eq(Mux(sums_end, 0, scale_tile + 1)),
                    ]
                    with m.If(sums_end):
                        m.d.sync += first_partial.eq(inputs_end)
                    with m.If(inputs_end):
                        m.d.sync += [block.eq(block + 1), group_block.eq(group_block + 1)]
                        with m.If(group_ends):
                            m.d.sync += [
                                group_block.eq(0),
                                channel_base.eq(base + layer.group_inputs),
                                block_base.eq(base + layer.group_inputs),
                            ]
                        with m.If(blocks_end):
                            m.d.comb += self.layer.ready.eq(1)
                            m.d.sync += [fresh.eq(1), block.eq(0), group_block.eq(0)]
        return m


def _least(a: Value, b: Value) -> Value:
    return Mux(a < b, a, b)
