"""Sequencer: when each output beat of a layer can start, and why it cannot."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.decode.codes import CODE_BITS_MAX
from rtl.decode.zeros import zero_row_layout
from rtl.descriptor import LAYER
from vq.container import CHUNK_SUBVECTORS

__all__ = ["SLOT", "Sequencer"]

#: What travels down the decoder's pipeline beside the data. A bubble carries its cause, so that
#: the cycle in which nothing leaves is charged to what was missing when it entered.
SLOT = data.StructLayout(
    {
        "valid": 1,
        "raw": 1,  # one bus beat of int8 weights
        "signed": 1,
        "codes": 1,
        "last": 1,  # last of its layer
        "new_book": 1,  # first lookup in a new codebook
        "book": 1,
        "log2_d": 3,
        "awaits_codebook": 1,  # of a bubble: codebook or zeros were missing, else data from memory
    }
)


class Sequencer(wiring.Component):
    """Walk through a layer's chunks, one output beat per cycle.

    Combinational from its inputs to ``slot``: the outputs describe the current cycle.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    layer : In(stream.Signature(LAYER))
        Taken with the layer's last output beat.
    enable : In(1)
        The pipeline advances; nothing is consumed otherwise.
    filled : In(1)
        The chunk's planes are complete.
    direct_valid : In(1)
        A beat of signs or int8 weights is there.
    all_arrived : In(1)
        The layer's whole stream has left the bus. A layer's last output beat waits for it: parity
        signs may end in beats that no output beat needs.
    book_loaded : In(1)
        The next codebook is complete.
    rows : In(stream.Signature(zero_row_layout(config)))
        Rows of zeros. One is used with the first output beat of each group; those behind the
        last group of a layer are dropped before its last output beat. A layer whose rows are too
        few goes on with its last one.
    step : Out(range(512 * d_max // W))
        Which ``W`` weights of the chunk.
    slot : Out(SLOT)
        What enters the pipeline.
    start : Out(1)
        An output beat starts in this cycle.
    zeros : Out(4 * tile_outputs)
        Row of zeros of the output beat, if it is of codes.
    direct_ready : Out(1)
        The direct beat is used.
    direct_missing : Out(1)
        The output beat has no direct beat although its layer has parity signs.
    release : Out(1)
        The chunk's planes have been read.
    take_book : Out(1)
        The next codebook becomes the current one.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(LAYER)),
                "enable": In(1),
                "filled": In(1),
                "direct_valid": In(1),
                "all_arrived": In(1),
                "book_loaded": In(1),
                "step": Out(range(CHUNK_SUBVECTORS * config.d_max // config.bus_bits)),
                "slot": Out(SLOT),
                "rows": In(stream.Signature(zero_row_layout(config))),
                "zeros": Out(CODE_BITS_MAX * config.tile_outputs),
                "start": Out(1),
                "direct_ready": Out(1),
                "direct_missing": Out(1),
                "release": Out(1),
                "take_book": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer.payload
        beat_shift = (self._config.granule_beats - 1).bit_length()

        fresh = Signal(init=1)  # no beat of this layer has started
        count = Signal(32 + beat_shift)  # beats of the chunk, or of the layer if int8
        chunk = Signal(32)
        book = Signal(init=1)  # the first load goes to book 0

        last_chunk = chunk == layer.chunks - 1
        granules = Signal(32)
        with m.If(layer.raw):
            m.d.comb += granules.eq(layer.stream_granules)
        with m.Elif(last_chunk):
            m.d.comb += granules.eq(layer.last_granules)
        with m.Else():
            m.d.comb += granules.eq(Const(1, 5) << layer.log2_d)

        # Of d output beats with parity signs, the last needs no new beat. Padding weights behind
        # the last stored sign do not, either.
        last_phase = Signal()
        signs_taken = Signal(5 + beat_shift)
        signs_left = signs_taken != layer.last_sign_granules << beat_shift
        with m.Switch(layer.log2_d):
            for log2_d in range(
                self._config.d_min.bit_length() - 1, self._config.d_max.bit_length()
            ):
                with m.Case(log2_d):
                    m.d.comb += last_phase.eq(count[:log2_d].all())

        needs_direct = Signal()
        data_there = Signal()
        new_book = Signal()
        book_there = Signal()
        start = Signal()
        part_ends = Signal()
        layer_ends = Signal()
        row_there = self._walk_groups(m, start, layer_ends)
        m.d.comb += [
            self.direct_missing.eq(layer.parity & (last_phase | (last_chunk & ~signs_left))),
            needs_direct.eq(layer.raw | (layer.signed & ~self.direct_missing)),
            data_there.eq(
                self.layer.valid
                & (layer.raw | self.filled)
                & (~needs_direct | self.direct_valid)
                & (~layer_ends | self.all_arrived)
            ),
            new_book.eq(fresh & layer.load & ~layer.codes),
            book_there.eq(~new_book | self.book_loaded),
            start.eq(self.slot.valid & self.enable),
            part_ends.eq(count == (granules << beat_shift) - 1),
            layer_ends.eq(part_ends & (layer.raw | last_chunk)),
            self.step.eq(count),
            self.start.eq(start),
            self.direct_ready.eq(start & needs_direct),
            self.release.eq(start & part_ends & ~layer.raw),
            self.take_book.eq(start & new_book),
            self.layer.ready.eq(start & layer_ends),
            self.slot.valid.eq(data_there & book_there & row_there),
            self.slot.raw.eq(layer.raw),
            self.slot.signed.eq(layer.signed),
            self.slot.codes.eq(layer.codes),
            self.slot.last.eq(layer_ends),
            self.slot.new_book.eq(new_book),
            self.slot.book.eq(book ^ new_book),
            self.slot.log2_d.eq(layer.log2_d),
            self.slot.awaits_codebook.eq(data_there & ~(book_there & row_there)),
        ]
        with m.If(start):
            m.d.sync += [
                fresh.eq(0),
                count.eq(count + 1),
                signs_taken.eq(signs_taken + needs_direct),
                book.eq(book ^ new_book),
            ]
            with m.If(part_ends):
                m.d.sync += [count.eq(0), signs_taken.eq(0), chunk.eq(chunk + 1)]
            with m.If(layer_ends):
                m.d.sync += [fresh.eq(1), chunk.eq(0)]
        return m

    def _walk_groups(self, m: Module, start: Value, layer_ends: Value) -> Value:
        """Give every output beat the zeros of its group; the result is whether they are there."""
        layer, rows = self.layer.payload, self.rows
        row = Signal(self.zeros.shape())
        held = Signal()  # `row` is that of the group that starts
        ended = Signal()  # `row` is the layer's last
        group_count = Signal(32)
        block_count = Signal(32)
        group_ends = Signal()
        block_ends = Signal()

        new_row = Signal()
        behind = Signal()  # rows that no group uses are next
        waits = Signal()
        taken = Signal()
        m.d.comb += [
            block_ends.eq(block_count == layer.block_beats - 1),
            group_ends.eq(block_ends | (group_count == layer.group_beats - 1)),
            new_row.eq(layer.zeros & (group_count == 0) & ~held & ~ended),
            behind.eq(layer.zeros & layer_ends & ~new_row & ~ended),
            waits.eq(Mux(new_row, ~rows.valid | (layer_ends & ~rows.p.last), behind)),
            rows.ready.eq(
                Mux(
                    new_row & (~layer_ends | rows.p.last),
                    start,
                    self.layer.valid & (new_row | behind),
                )
            ),
            taken.eq(rows.valid & rows.ready),
            self.zeros.eq(
                Mux(
                    layer.zeros,
                    Mux(new_row, rows.p.zeros, row),
                    (Const(1, CODE_BITS_MAX) << (layer.index_bits - 1)[:2])[
                        :CODE_BITS_MAX
                    ].replicate(self._config.tile_outputs),
                )
            ),
        ]
        with m.If(taken):
            m.d.sync += ended.eq(rows.p.last)
            with m.If(new_row):
                m.d.sync += [row.eq(rows.p.zeros), held.eq(1)]
        with m.If(start):
            m.d.sync += [
                held.eq(0),
                group_count.eq(Mux(group_ends, 0, group_count + 1)),
                block_count.eq(Mux(block_ends, 0, block_count + 1)),
            ]
            with m.If(layer_ends):
                m.d.sync += [ended.eq(0), group_count.eq(0), block_count.eq(0)]
        return ~waits
