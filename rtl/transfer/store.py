"""Store: finished outputs from their buffer to memory, and a record of each layer behind them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import REGION
from rtl.bus.gearbox import Gearbox
from rtl.compute.config import ArrayConfig
from rtl.config import StreamerConfig
from vq.container import GRANULE_BYTES

__all__ = ["RECORD_BITS", "STORE_LAYER", "Store"]

#: A record is one granule.
RECORD_BITS = 8 * GRANULE_BYTES

#: Where a layer's outputs are and go. ``record`` is the granule of the layer's record.
STORE_LAYER = data.StructLayout(
    {
        "region": REGION,
        "record": 58,
        "word": 24,
        "early": 1,  # outputs come in the order of memory: store each as soon as it is there
    }
)


class Store(wiring.Component):
    """Read words of the output buffer, join them to beats, give them to the write DMA.

    Parameters
    ----------
    config : StreamerConfig
    array : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(STORE_LAYER))
    complete : In(1)
        All outputs of the next layer that is not complete are in the buffer.
    stored : In(24)
        How many words of it are, if it is not.
    record : In(stream.Signature(RECORD_BITS))
        One for each layer, in order.
    read : Out(range(array.output_words))
        Address of a word.
    data : In(8 * array.rows)
        The word of the address of the cycle before.
    region : Out(stream.Signature(REGION))
    beats : Out(stream.Signature(config.bus_bits))
        To the write DMA: outputs, then the record.
    free : Out(1)
        The outputs of a layer have been read.
    finished : Out(1)
        Outputs and record of a layer have been handed over.
    """

    def __init__(self, config: StreamerConfig, array: ArrayConfig) -> None:
        self._config, self._array = config, array
        super().__init__(
            {
                "layer": In(stream.Signature(STORE_LAYER)),
                "complete": In(1),
                "stored": In(24),
                "record": In(stream.Signature(RECORD_BITS)),
                "read": Out(range(array.output_words)),
                "data": In(8 * array.rows),
                "region": Out(stream.Signature(REGION)),
                "beats": Out(stream.Signature(config.bus_bits)),
                "free": Out(1),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, array = self._config, self._array
        word_bits = 8 * array.rows
        m.submodules.join = join = Gearbox(word_bits, config.bus_bits)
        m.submodules.cut = cut = Gearbox(RECORD_BITS, config.bus_bits)
        layer = self.layer.payload
        words_shift = (GRANULE_BYTES // array.rows).bit_length() - 1

        complete = Signal(8)  # layers whose outputs are all there and not all read
        number = Signal(32)  # next word of the layer to hand over
        there = Signal()  # `data` is that word
        of_record = Signal()
        words = Signal(32)
        taken = join.put.valid & join.put.ready
        m.d.comb += [
            words.eq(layer.region.granules << words_shift),
            join.put.payload.eq(self.data),
            join.put.valid.eq(there),
            self.read.eq(layer.word + number + taken),
            self.free.eq(taken & (number == words - 1)),
        ]
        ahead = Signal(32)
        m.d.comb += ahead.eq(number + taken)
        m.d.sync += [
            number.eq(Mux(self.free, 0, ahead)),
            complete.eq(complete + self.complete - self.free),
            there.eq(
                self.layer.valid
                & ~of_record
                & ~self.free
                & (ahead != words)
                & ((complete != 0) | (layer.early & (ahead < self.stored)))
            ),
        ]
        with m.If(self.free):
            m.d.sync += of_record.eq(1)

        # The region is announced with its first beat; the DMA takes it with its last one.
        m.d.comb += [
            cut.put.payload.eq(self.record.payload),
            cut.put.valid.eq(self.record.valid & of_record),
            self.record.ready.eq(cut.put.ready & of_record),
            self.region.valid.eq(self.layer.valid),
            self.region.p.granules.eq(Mux(of_record, 1, layer.region.granules)),
            self.region.p.address.eq(Mux(of_record, layer.record, layer.region.address)),
            self.finished.eq(of_record & self.region.ready & self.region.valid),
            self.layer.ready.eq(self.finished),
        ]
        with m.If(of_record):
            m.d.comb += [
                self.beats.payload.eq(cut.get.payload),
                self.beats.valid.eq(cut.get.valid),
                cut.get.ready.eq(self.beats.ready),
            ]
        with m.Else():
            m.d.comb += [
                self.beats.payload.eq(join.get.payload),
                self.beats.valid.eq(join.get.valid),
                join.get.ready.eq(self.beats.ready),
            ]
        with m.If(self.finished):
            m.d.sync += of_record.eq(0)
        return m
