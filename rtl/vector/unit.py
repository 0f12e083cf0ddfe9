"""Vector unit: rows in, rows out, by one operation after another."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.vector.channels import Channels
from rtl.vector.config import VectorConfig
from rtl.vector.lanes import Lanes
from rtl.vector.layer import FACTOR, VECTOR_LAYER, VectorOp, values_layout
from rtl.vector.reduce import Reducer
from rtl.vector.row import RowBuffer
from rtl.vector.scalar import ScalarUnit
from rtl.vector.sequence import Sequencer
from rtl.vector.table import Table
from rtl.vector.tally import Tally

__all__ = ["VectorUnit"]


class VectorUnit(wiring.Component):
    """Softmax, norms, functions, sums, products, rotations, means, rescaling of rows.

    ::

        values -> row buffer -------------------> lanes -> outputs
                    |-> reducer -> scalar unit ---^  |
        numbers -> table, channels ---------------^  v
        other ------------------------------------^  tally -> scalar unit -> factors

    A row comes into the buffer and is reduced, while those before it are mapped. Rows are whole
    beats; what lies behind the last channel of a row is not read, and written as zero.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(stream.Signature(VECTOR_LAYER))
        Taken when the last output and the last factor have been.
    values : In(stream.Signature(values_layout(config)))
        First operands: int16, or int8 with their signs.
    other : In(stream.Signature(values_layout(config)))
        Second operands of ADD and PRODUCT.
    numbers : In(stream.Signature(values_layout(config)))
        What a layer loads: 257 entries of a table, then numbers of channels.
    outputs : Out(stream.Signature(values_layout(config)))
    factors : Out(stream.Signature(FACTOR))
        Of ROWS and SHARES: one for each row, in order.
    idle : Out(1)
        No beat is in the lanes, no number in the scalar stage.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        values = stream.Signature(values_layout(config))
        super().__init__(
            {
                "layer": In(stream.Signature(VECTOR_LAYER)),
                "values": In(values),
                "other": In(values),
                "numbers": In(values),
                "outputs": Out(values),
                "factors": Out(stream.Signature(FACTOR)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer.payload
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.ring = row = RowBuffer(config)
        m.submodules.reducer = reducer = Reducer(config)
        m.submodules.scalar = scalar = ScalarUnit(config)
        m.submodules.table = table = Table(config)
        m.submodules.channels = channels = Channels(config)
        m.submodules.lanes = lanes = Lanes(config)
        m.submodules.tally = tally = Tally(config)
        connect(m, flipped(self.layer), sequencer.layer)
        connect(m, flipped(self.values), row.values)
        connect(m, flipped(self.other), lanes.other)
        connect(m, lanes.outputs, flipped(self.outputs))
        connect(m, scalar.factors, flipped(self.factors))
        connect(m, reducer.rows, scalar.reduced)
        connect(m, scalar.rows, sequencer.rows)
        connect(m, scalar.second, sequencer.second)

        m.d.comb += [
            row.layer.eq(layer),
            row.start.eq(sequencer.start),
            row.whole.eq(sequencer.whole),
            row.outstanding.eq(reducer.outstanding),
            row.issues.eq(sequencer.issues),
            row.frees.eq(sequencer.frees),
            row.enable.eq(lanes.advance),
            row.place.eq(sequencer.issued.place),
            reducer.beat.eq(row.reducible),
            scalar.layer.eq(layer),
            sequencer.there.eq(row.there),
            sequencer.advance.eq(lanes.advance),
            sequencer.idle.eq(lanes.idle),
            sequencer.settled.eq(scalar.idle & ~scalar.factors.valid),
            self.idle.eq(lanes.idle & scalar.idle),
        ]
        # Numbers that a layer begins with.
        m.d.comb += [
            table.number.eq(layer.table),
            table.entries.payload.eq(self.numbers.payload),
            table.entries.valid.eq(self.numbers.valid & sequencer.loads_table),
            channels.beats.eq(((layer.channels - 1) >> config.log2_lanes) + 1),
            channels.numbers.payload.eq(self.numbers.payload),
            channels.numbers.valid.eq(self.numbers.valid & sequencer.loads_channels),
            self.numbers.ready.eq(
                (sequencer.loads_table & table.entries.ready) | sequencer.loads_channels
            ),
            sequencer.loaded.eq(table.loaded | channels.loaded),
        ]
        m.d.comb += [
            lanes.layer.eq(layer),
            lanes.issued.eq(sequencer.issued),
            lanes.numbers.eq(sequencer.numbers),
            lanes.x.eq(row.found),
            lanes.channels.eq(channels.found),
            lanes.entries.eq(table.found),
            channels.enable.eq(lanes.advance),
            channels.at.eq(lanes.channel),
            table.enable.eq(lanes.advance),
            table.places.eq(lanes.places),
        ]
        # What the first of two passes gives: exponentials in place of scores, sums of columns.
        sums = layer.op == VectorOp.MEAN
        m.d.comb += [
            channels.keep.eq(lanes.kept & sums),
            channels.kept.eq(lanes.ended.beat),
            channels.sums.eq(lanes.results),
            row.kept.enable.eq(lanes.kept & ~sums),
            row.kept.place.eq(lanes.ended.place),
        ]
        for lane in range(config.lanes):
            m.d.comb += row.kept.values[lane].eq(lanes.results[lane])
        # Sums of exponentials or of their codes, and how many rows a mean has.
        shares = (layer.op == VectorOp.SHARES) | (layer.op == VectorOp.SHARES_WIDE)
        m.d.comb += [
            tally.ended.eq(lanes.ended),
            tally.ended.valid.eq(lanes.ended.valid & shares & ~lanes.ended.second),
            tally.results.eq(lanes.results),
            scalar.tally.valid.eq(Mux(sums, sequencer.tally.valid, tally.sums.valid)),
            scalar.tally.payload.eq(Mux(sums, sequencer.tally.payload, tally.sums.payload)),
            tally.sums.ready.eq(scalar.tally.ready),
            sequencer.tally.ready.eq(scalar.tally.ready & sums),
            sequencer.tallied.eq(scalar.tally.valid & scalar.tally.ready),
        ]
        return m
