"""Weight tile: from the decoder's beats to the registers that the array multiplies with."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed
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
    beat. Where blocks are whole and start with a beat, a lane holds one of few elements of the
    tile, one for every sub-vector length, and all lanes are written at once: the tile takes the
    decoder's full rate. Other blocks (the last one of a layer, if ragged, or all of them if a
    block is no whole number of beats) are written a sub-vector per cycle.

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
        lane = Signal(log2_lanes)  # next weight of the beat, in a block that is not written at once
        tiles = Signal(32)

        rows_left = layer.outputs - first_row
        whole = rows_left[:33] >= rows
        last_block = rows_left[:33] <= rows
        inputs = Signal(36)
        m.d.comb += inputs.eq(layer.columns << layer.log2_d)
        aligned = (inputs & (lanes // rows - 1)) == 0
        fast = whole & aligned

        # At once: weight w of a tile belongs to its sub-vector s = w >> log2_d, which is in row
        # s mod rows and in column s div rows of sub-vectors.
        beats_per_tile = rows * columns // lanes
        beat_in_tile = Signal(range(max(2, beats_per_tile)))
        moved_fast = self.beats.valid & self.layer.valid & ~layer.identity & fast & free

        # One by one: a slice of d weights goes to one row.
        moved_slow = self.beats.valid & self.layer.valid & ~layer.identity & ~fast & free
        group = min(config.d_max, lanes)
        chosen = Signal(data.ArrayLayout(signed(8), group))
        groups = Array(
            Value.cast(self.beats.p.weights).word_select(Const(i, range(lanes // group)), 8 * group)
            for i in range(lanes // group)
        )
        wide = Signal(8 * group)
        m.d.comb += wide.eq(groups[lane[group.bit_length() - 1 :]] if lanes > group else groups[0])
        with m.Switch(layer.log2_d):
            for log2_d in range(log2_d_max + 1):
                d = 1 << log2_d
                with m.Case(log2_d):
                    part = lane[log2_d : group.bit_length() - 1] if d < group else Const(0, 1)
                    piece = wide.word_select(part, 8 * d) if d < group else wide
                    # Repeated, so that column c of the tile finds its weight at c mod group.
                    m.d.comb += chosen.as_value().eq(piece.replicate(group // d))

        last_row = Mux(whole, rows - 1, (rows_left - 1)[:log2_rows])
        d_now = Signal(range(config.d_max + 1))
        m.d.comb += d_now.eq(1 << layer.log2_d)

        for o in range(rows):
            for c in range(columns):
                target = shadow[o][c]
                with m.If(moved_fast):
                    with m.Switch(layer.log2_d):
                        for log2_d in range(log2_d_max + 1):
                            place = (((c >> log2_d) * rows + o) << log2_d) + c % (1 << log2_d)
                            with m.Case(log2_d):
                                with m.If(beat_in_tile == place // lanes):
                                    m.d.sync += target.eq(self.beats.p.weights[place % lanes])
                here = (inputs_done[:log2_columns] ^ c) >> layer.log2_d == 0
                with m.If(moved_slow & (row == o) & here):
                    m.d.sync += target.eq(chosen[c % group])

        row_ends = Signal()  # the block is complete after this beat or sub-vector
        tile_ends = Signal()
        next_inputs = Signal(36)
        column_ends = fast | (row == last_row)
        with m.If(fast):
            m.d.comb += next_inputs.eq(inputs_done + lanes // rows)
        with m.Elif(column_ends):
            m.d.comb += next_inputs.eq(inputs_done + d_now)
        with m.Else():
            m.d.comb += next_inputs.eq(inputs_done)
        m.d.comb += [
            row_ends.eq(column_ends & (next_inputs == inputs)),
            tile_ends.eq(column_ends & (row_ends | (next_inputs[:log2_columns] == 0))),
        ]
        layer_ends = row_ends & last_block
        beat_ends = (lane + d_now == lanes) | layer_ends
        made_identity = self.layer.valid & layer.identity & free
        m.d.comb += [
            self.beats.ready.eq(moved_fast | (moved_slow & beat_ends)),
            self.layer.ready.eq(
                ((moved_fast | moved_slow) & layer_ends)
                | (made_identity & (tiles == layer.tiles - 1))
            ),
        ]
        with m.If(self.take):
            m.d.sync += [full.eq(0), self.weights.eq(Cat(*(Cat(*row) for row in shadow)))]
        with m.If(moved_fast | moved_slow):
            with m.If(moved_fast):
                m.d.sync += beat_in_tile.eq(Mux(tile_ends, 0, beat_in_tile + 1))
            with m.Else():
                m.d.sync += [
                    row.eq(Mux(column_ends, 0, row + 1)),
                    lane.eq(Mux(layer_ends, 0, lane + d_now)),
                ]
            m.d.sync += inputs_done.eq(Mux(row_ends, 0, next_inputs))
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
