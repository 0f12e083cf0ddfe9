"""Weight tile: from the decoder's beats to the registers that the array multiplies with."""

import itertools
from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.compute.config import ArrayConfig

__all__ = ["TILE_LAYER", "WeightTile", "tile_layout"]

#: What the tile has to know of a layer. ``outputs`` and ``columns`` count what the stream holds:
#: rows of weights, with the filling of sub-vectors along outputs, and sub-vectors of one row.
TILE_LAYER = data.StructLayout(
    {
        "log2_d": 3,  # of sub-vectors along inputs; 0 for scalars and sub-vectors along outputs
        "outputs": 32,
        "columns": 32,
        "identity": 1,  # no weights come: every tile is the identity
        "tiles": 32,  # with ``identity``: how many
    }
)


def tile_layout(config: ArrayConfig) -> data.ArrayLayout:
    """Weights of one tile, output by output."""
    return data.ArrayLayout(data.ArrayLayout(signed(8), config.columns), config.rows)


class WeightTile(wiring.Component):
    """Sort weights in stream order into a tile of outputs times inputs, double-buffered.

    A block of ``rows`` outputs arrives along the inputs, outputs innermost, ``lanes`` weights in a
    beat. Written at once is the longest power of two of weights that always lies at a multiple of
    itself in the beats and is a rectangle of the tile: in a whole block all outputs of as many
    inputs as divide a row of weights, up to a whole beat; in a last block of fewer outputs one
    sub-vector of as many outputs as divide their number.

    Columns behind the end of a row and rows behind the last output keep old weights: their
    activations must be zero, their sums must be ignored.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(TILE_LAYER))
        Taken when the last of its weights are in the tile.
    beats : In(stream.Signature(...))
        ``weights``: [lanes] int8 in stream order. A layer starts with a new beat.
    full : Out(1)
        The next tile is complete.
    take : In(1)
        Make it the current one. Must not be asserted unless ``full``.
    weights : Out(tile_layout(config))
        The current tile, from the cycle after ``take`` to the next one.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        beat = data.StructLayout({"weights": data.ArrayLayout(signed(8), config.lanes)})
        super().__init__(
            {
                "layer": In(stream.Signature(TILE_LAYER)),
                "beats": In(stream.Signature(beat)),
                "full": Out(1),
                "take": In(1),
                "weights": Out(tile_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        rows, columns, lanes = config.rows, config.columns, config.lanes
        log2_rows, log2_columns = rows.bit_length() - 1, columns.bit_length() - 1
        log2_lanes, log2_d_max = lanes.bit_length() - 1, config.d_max.bit_length() - 1
        layer = self.layer.payload

        # A signal for each element: Amaranth takes time for all bits of what it assigns a part of.
        shadow = [
            [Signal(signed(8), name=f"shadow_{o}_{c}") for c in range(columns)] for o in range(rows)
        ]
        full = Signal()
        free = ~full | self.take
        m.d.comb += self.full.eq(full)

        # Where the next weights go: block, inputs of the block that are done, row of the column.
        first_row = Signal(32)
        inputs_done = Signal(36)
        row = Signal(range(rows))
        lane = Signal(log2_lanes)  # the first of them in the beat
        tiles = Signal(32)

        rows_left = layer.outputs - first_row
        whole = rows_left[:33] >= rows
        last_block = rows_left[:33] <= rows
        inputs = Signal(36)
        m.d.comb += inputs.eq(layer.columns << layer.log2_d)

        # The rectangle that is written at once.
        log2_inputs, log2_outputs = Signal(range(log2_columns + 1)), Signal(range(log2_rows + 1))
        log2_weights = Signal(range(log2_lanes + 1))
        divides_row = _trailing_zeros(inputs[: log2_lanes - log2_rows])
        divides_block = Mux(whole, log2_rows, _trailing_zeros(rows_left[:log2_rows]))
        m.d.comb += [
            log2_inputs.eq(Mux(whole, _larger(divides_row, layer.log2_d), layer.log2_d)),
            # A column of long sub-vectors may be wider than a beat.
            log2_outputs.eq(_smaller(divides_block, log2_lanes - layer.log2_d)),
            log2_weights.eq(log2_inputs + log2_outputs),
        ]
        moved = self.beats.valid & self.layer.valid & ~layer.identity & free

        # ``halves[n]``: the 2**n weights of the beat among which ``lane`` is.
        half = Value.cast(self.beats.p.weights)
        halves = [half]
        for log2 in reversed(range(log2_lanes)):
            shorter = Signal(8 << log2, name=f"half_{log2}")
            m.d.comb += shorter.eq(half.word_select(lane[log2], 8 << log2))
            halves.insert(0, half := shorter)
        # The rectangle's weights, repeated, so that weight w of a tile finds its own in lane w mod
        # lanes. They begin where ``lane`` is, at a multiple of their number: the first 2**n of them
        # are ``halves[n]``, and what comes behind is more of them or their repetition.
        repeated: Value = halves[0]
        for log2 in range(log2_lanes):
            behind = Signal(8 << log2, name=f"behind_{log2}")
            more = halves[log2 + 1][8 << log2 :]
            m.d.comb += behind.eq(Mux(log2_weights > log2, more, repeated))
            repeated = Cat(repeated, behind)

        # Weight w belongs to its sub-vector s = w >> log2_d, which is in row s mod rows and in
        # column s div rows of sub-vectors.
        in_row, in_column = Signal(rows), Signal(columns)
        for o in range(rows):
            m.d.comb += in_row[o].eq((row ^ o) >> log2_outputs == 0)
        for c in range(columns):
            m.d.comb += in_column[c].eq((inputs_done[:log2_columns] ^ c) >> log2_inputs == 0)
        for o, c in itertools.product(range(rows), range(columns)):
            places = [
                (((c >> log2_d) * rows + o) << log2_d) + c % (1 << log2_d)
                for log2_d in range(log2_d_max + 1)
            ]
            with m.If(moved & in_row[o] & in_column[c]):
                m.d.sync += shadow[o][c].eq(
                    _choice(layer.log2_d, [repeated.word_select(w % lanes, 8) for w in places])
                )

        column_ends = Signal()
        row_ends = Signal()  # the block is complete with these weights
        tile_ends = Signal()
        next_row = row + (1 << log2_outputs)
        next_lane = lane + (1 << log2_weights)
        next_inputs = Signal(36)
        m.d.comb += [
            column_ends.eq(next_row == Mux(whole, rows, rows_left[:log2_rows])),
            next_inputs.eq(inputs_done + Mux(column_ends, 1 << log2_inputs, 0)),
            row_ends.eq(column_ends & (next_inputs == inputs)),
            tile_ends.eq(column_ends & (row_ends | (next_inputs[:log2_columns] == 0))),
        ]
        layer_ends = row_ends & last_block
        made_identity = self.layer.valid & layer.identity & free
        m.d.comb += [
            self.beats.ready.eq(moved & ((next_lane == lanes) | layer_ends)),
            self.layer.ready.eq(
                (moved & layer_ends) | (made_identity & (tiles == layer.tiles - 1))
            ),
        ]
        with m.If(self.take):
            m.d.sync += [full.eq(0), self.weights.eq(Cat(*(Cat(*row) for row in shadow)))]
        with m.If(moved):
            m.d.sync += [
                row.eq(Mux(column_ends, 0, next_row)),
                lane.eq(Mux(layer_ends, 0, next_lane)),
                inputs_done.eq(Mux(row_ends, 0, next_inputs)),
            ]
            with m.If(row_ends):
                m.d.sync += first_row.eq(Mux(last_block, 0, first_row + rows))
            with m.If(tile_ends):
                m.d.sync += full.eq(1)
        with m.If(made_identity):
            m.d.sync += [full.eq(1), tiles.eq(Mux(self.layer.ready, 0, tiles + 1))]
            parts = max(1, rows // columns)  # tiles that make up the identity of a block
            part = tiles[: (parts - 1).bit_length()]
            for o in range(rows):
                for c in range(columns):
                    one = part == o // columns if o % columns == c else 0
                    m.d.sync += shadow[o][c].eq(one)
        return m


def _trailing_zeros(value: Value) -> Value:
    """Zeros of a value from its lowest bit on: as many as it has bits, if it is zero."""
    zeros: Value = Const(len(value))
    for bit in reversed(range(len(value))):
        zeros = Mux(value[bit], bit, zeros)
    return zeros


def _smaller(a: Value, b: Value) -> Value:
    return Mux(a < b, a, b)


def _larger(a: Value, b: Value) -> Value:
    return Mux(a < b, b, a)


def _choice(index: Value, values: Sequence[Value]) -> Value:
    """One of some values by choices of two: fewer look-up tables than for a switch."""
    if len(values) == 1:
        return values[0]
    bit = (len(values) - 1).bit_length() - 1
    lower, upper = values[: 1 << bit], values[1 << bit :]
    return Mux(index[bit], _choice(index, upper), _choice(index, lower))
