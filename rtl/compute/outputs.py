"""Output buffer: finished words to their places, as they will lie in memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.compute.config import ArrayConfig
from rtl.compute.requantize import word_layout
from rtl.compute.residual import ADDITION, Residual

__all__ = ["OUTPUT_LAYER", "OutputBuffer", "output_write_layout"]

#: How finished words come, and how they are to lie: ``[position][block]``. Words behind the last
#: block of a position keep what they held.
OUTPUT_LAYER = data.StructLayout(
    {
        "blocks": 16,
        "positions": 17,
        "pixel_words": 16,  # from a position to the next one; at least ``blocks``
        "last_rows": 7,  # outputs of the last block; the bytes behind them are zero
        "first_word": 24,
        "addition": ADDITION,
    }
)


def output_write_layout(config: ArrayConfig) -> data.StructLayout:
    """Write port for a tensor that is to be added to."""
    return data.StructLayout(
        {"enable": 1, "word": range(config.output_words), "data": 8 * config.rows}
    )


class OutputBuffer(wiring.Component):
    """Keep a layer's outputs until they are written back.

    Words come block by block and lie position by position, so that memory holds all channels of a
    position together. What the buffer held before can be added: a residual is loaded first, and
    its sum with the outputs takes its place.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(OUTPUT_LAYER))
        Taken when its last word is in the buffer.
    words : In(stream.Signature(word_layout(config)))
    load : In(output_write_layout(config))
        A word of the residual. Not while outputs of its layer come.
    read : In(range(output_words))
        Word to read.
    data : Out(8 * rows)
        It, a cycle later.
    stored : Out(24)
        Words of the current layer that are complete, in the order in which they came.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(OUTPUT_LAYER)),
                "words": In(stream.Signature(word_layout(config))),
                "load": In(output_write_layout(config)),
                "read": In(range(config.output_words)),
                "data": Out(8 * config.rows),
                "stored": Out(24),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        shape = 8 * config.rows
        m.submodules.memory = memory = Memory(shape=shape, depth=config.output_words, init=[])
        m.submodules.residual = residual = Residual(config)
        write = memory.write_port()
        old, out = memory.read_port(), memory.read_port()
        layer = self.layer.payload

        # A word waits for the old one at its place, and both enter the adder.
        held = Signal(word_layout(config))
        there = Signal()
        m.submodules.come = come = _Place()
        m.submodules.gone = gone = _Place()
        all_came = Signal()  # the next words belong to the next layer
        m.d.comb += [come.layer.eq(layer), gone.layer.eq(layer)]
        accepted = self.words.valid & self.words.ready
        m.d.comb += [
            self.words.ready.eq(self.layer.valid & (~there | residual.words.ready) & ~all_came),
            old.en.eq(accepted),
            old.addr.eq(come.word),
            come.step.eq(accepted),
            residual.words.valid.eq(there),
            residual.words.p.own.eq(held),
            residual.words.p.other.eq(old.data),
            residual.words.p.addition.eq(layer.addition),
        ]
        with m.If(residual.words.ready):
            m.d.sync += there.eq(0)
        with m.If(accepted):
            m.d.sync += [there.eq(1), held.eq(self.words.payload)]

        masked = Signal(word_layout(config))
        for o in range(config.rows):
            real = (gone.block != layer.blocks - 1) | (o < layer.last_rows)
            m.d.comb += masked[o].eq(Mux(real, residual.sums.payload[o], 0))
        finished = residual.sums.valid
        m.d.comb += [
            residual.sums.ready.eq(~self.load.enable),
            gone.step.eq(finished & residual.sums.ready),
            self.layer.ready.eq(gone.step & gone.last),
            write.en.eq(self.load.enable | gone.step),
            write.addr.eq(Mux(self.load.enable, self.load.word, gone.word)),
            write.data.eq(Mux(self.load.enable, self.load.data, masked)),
            out.en.eq(1),
            out.addr.eq(self.read),
            self.data.eq(out.data),
        ]
        with m.If(come.step & come.last):
            m.d.sync += all_came.eq(1)
        with m.If(self.layer.ready):
            m.d.sync += all_came.eq(0)
        with m.If(gone.step):
            m.d.sync += self.stored.eq(Mux(gone.last, 0, self.stored + 1))
        return m


class _Place(wiring.Component):
    """Where the next word of a layer goes, while words come block by block."""

    def __init__(self) -> None:
        super().__init__(
            {
                "layer": In(OUTPUT_LAYER),
                "step": In(1),
                "word": Out(24),
                "block": Out(16),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        position = Signal(17)
        offset = Signal(24)
        block_ends = position == self.layer.positions - 1
        m.d.comb += [
            self.word.eq(self.layer.first_word + offset),
            self.last.eq(block_ends & (self.block == self.layer.blocks - 1)),
        ]
        with m.If(self.step):
            m.d.sync += [position.eq(position + 1), offset.eq(offset + self.layer.pixel_words)]
            with m.If(block_ends):
                m.d.sync += [position.eq(0), offset.eq(self.block + 1)]
                m.d.sync += self.block.eq(self.block + 1)
            with m.If(self.last):
                m.d.sync += [offset.eq(0), self.block.eq(0)]
        return m
