"""Sequencer: when each output beat of a layer can start, and why it cannot."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
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
        "last": 1,  # last of its layer
        "new_book": 1,  # first lookup in a new codebook
        "book": 1,
        "log2_d": 3,
        "awaits_codebook": 1,  # of a bubble: the codebook was missing, else data from memory
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
    book_loaded : In(1)
        The next codebook is complete.
    step : Out(range(512 * d_max // W))
        Which ``W`` weights of the chunk.
    slot : Out(SLOT)
        What enters the pipeline.
    direct_ready : Out(1)
        The direct beat is used.
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
                "book_loaded": In(1),
                "step": Out(range(CHUNK_SUBVECTORS * config.d_max // config.bus_bits)),
                "slot": Out(SLOT),
                "direct_ready": Out(1),
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

        data_there = Signal()
        new_book = Signal()
        book_there = Signal()
        start = Signal()
        part_ends = Signal()
        layer_ends = Signal()
        m.d.comb += [
            data_there.eq(
                self.layer.valid
                & Mux(
                    layer.raw,
                    self.direct_valid,
                    self.filled & (~layer.signed | self.direct_valid),
                )
            ),
            new_book.eq(fresh & layer.load),
            book_there.eq(~new_book | self.book_loaded),
            start.eq(data_there & book_there & self.enable),
            part_ends.eq(count == (granules << beat_shift) - 1),
            layer_ends.eq(part_ends & (layer.raw | last_chunk)),
            self.step.eq(count),
            self.direct_ready.eq(start & (layer.raw | layer.signed)),
            self.release.eq(start & part_ends & ~layer.raw),
            self.take_book.eq(start & new_book),
            self.layer.ready.eq(start & layer_ends),
            self.slot.valid.eq(data_there & book_there),
            self.slot.raw.eq(layer.raw),
            self.slot.signed.eq(layer.signed),
            self.slot.last.eq(layer_ends),
            self.slot.new_book.eq(new_book),
            self.slot.book.eq(book ^ new_book),
            self.slot.log2_d.eq(layer.log2_d),
            self.slot.awaits_codebook.eq(data_there & ~book_there),
        ]
        with m.If(start):
            m.d.sync += [fresh.eq(0), count.eq(count + 1), book.eq(book ^ new_book)]
            with m.If(part_ends):
                m.d.sync += [count.eq(0), chunk.eq(chunk + 1)]
            with m.If(layer_ends):
                m.d.sync += [fresh.eq(1), chunk.eq(0)]
        return m
