"""Codebook loader: beats of a codebook into rows of the codebook RAM, one per cycle."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import beat_layout
from rtl.config import StreamerConfig
from rtl.decode.codebook import row_layout
from rtl.decode.router import TRANSFER
from rtl.decode.zeros import zero_beat_layout
from rtl.descriptor import LAYER

__all__ = ["CodebookLoader"]


class CodebookLoader(wiring.Component):
    """Fill one book while the decoder reads the other.

    A book is loaded as soon as it is free, in advance of the layer that uses it. The zeros of
    groups come the same way but are used at once, so they pass.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    layer : In(stream.Signature(LAYER))
        The layers, in order; those that load nothing must be left out.
    beats : In(stream.Signature(beat_layout(config)))
        Codewords, one after another, int8, padded to 64 bytes. The padding is written, too:
        it lies behind the last codeword. Or zeros, padded likewise.
    row : Out(row_layout(config))
        To the codebook RAM.
    zeros : Out(stream.Signature(zero_beat_layout(config)))
        Beats of zeros.
    loaded : Out(1)
        A book is complete and not yet taken.
    take : In(1)
        The decoder starts to use the next book. Must not be asserted unless ``loaded``.
    free : In(1)
        The book before the current one is no longer read. One pulse for each ``take``.
    transfer : Out(stream.Signature(TRANSFER, always_ready=True))
        Given in the cycle of the book's last row, or of the last beat of zeros; the receiver must
        have room.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(LAYER)),
                "beats": In(stream.Signature(beat_layout(config))),
                "row": Out(row_layout(config)),
                "zeros": Out(stream.Signature(zero_beat_layout(config))),
                "loaded": Out(1),
                "take": In(1),
                "free": In(1),
                "transfer": Out(stream.Signature(TRANSFER, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        beat_shift = (config.granule_beats - 1).bit_length()
        layer = Signal(LAYER)
        active = Signal()
        beats_left = Signal(16 + beat_shift)
        book = Signal()
        row = Signal(config.index_bits_max)
        half = Signal()
        step = Signal(range(max(2, config.bus_bytes // config.d_min)))

        loaded_books = Signal(range(3))
        # The first book that is taken replaces none, so its `free` pulse returns nothing: there
        # is one book more than pulses.
        writable_books = Signal(range(4), init=2)
        any_used = Signal()
        start = Signal()
        finish = Signal()
        m.d.comb += [
            self.loaded.eq(loaded_books != 0),
            start.eq(~active & self.layer.valid & (self.layer.p.codes | (writable_books != 0))),
            self.layer.ready.eq(start),
        ]
        m.d.sync += [
            loaded_books.eq(loaded_books + (finish & ~layer.codes) - self.take),
            writable_books.eq(
                writable_books - (start & ~self.layer.p.codes) + (self.free & any_used)
            ),
        ]
        with m.If(self.free):
            m.d.sync += any_used.eq(1)
        with m.If(start):
            m.d.sync += [
                layer.eq(self.layer.payload),
                beats_left.eq(self.layer.p.codebook_granules << beat_shift),
                active.eq(1),
                row.eq(0),
            ]

        last_step = Signal()
        long_word = Signal()  # a codeword takes two beats
        window = Signal(len(self.row.data))
        with m.Switch(layer.log2_d):
            for log2_d in range(config.d_min.bit_length() - 1, config.d_max.bit_length()):
                d = 1 << log2_d
                steps = max(1, config.bus_bytes // d)
                with m.Case(log2_d):
                    m.d.comb += [
                        long_word.eq(d > config.bus_bytes),
                        last_step.eq(step == steps - 1),
                        window.eq(
                            self.beats.p.data.word_select(
                                step[: (steps - 1).bit_length()], 8 * config.bus_bytes // steps
                            )
                        ),
                    ]
        written = Signal()
        used = Signal()  # the last of the beat
        m.d.comb += [
            self.zeros.p.data.eq(self.beats.p.data),
            self.zeros.p.last.eq(beats_left == 1),
            self.zeros.valid.eq(active & layer.codes & self.beats.valid),
            written.eq(active & ~layer.codes & self.beats.valid),
            self.beats.ready.eq(active & Mux(layer.codes, self.zeros.ready, last_step)),
            used.eq(self.beats.valid & self.beats.ready),
            finish.eq(used & (beats_left == 1)),
        ]
        m.d.sync += self.row.enable.eq(written)
        with m.If(written):
            m.d.sync += [
                self.row.book.eq(book),
                self.row.row.eq(row),
                self.row.log2_d.eq(layer.log2_d),
                self.row.half.eq(half),
                self.row.data.eq(window),
                step.eq(Mux(last_step, 0, step + 1)),
                half.eq(long_word & ~half),
                row.eq(row + (~long_word | half)),
            ]
        with m.If(used):
            m.d.sync += beats_left.eq(beats_left - 1)
        with m.If(finish):
            m.d.sync += [active.eq(0), book.eq(book ^ ~layer.codes)]

        beats = Signal(32)
        bursts = Signal(32)
        error = Signal()
        m.d.comb += [
            self.transfer.valid.eq(finish),
            # A region ends with a burst. If the memory disagrees, it lost or added a beat.
            self.transfer.p.error.eq(error | self.beats.p.error | (finish & ~self.beats.p.last)),
            self.transfer.p.beats.eq(beats + 1),
            self.transfer.p.bursts.eq(bursts + self.beats.p.last),
        ]
        with m.If(used):
            m.d.sync += [
                beats.eq(self.transfer.p.beats),
                bursts.eq(self.transfer.p.bursts),
                error.eq(self.transfer.p.error),
            ]
        with m.If(finish):
            m.d.sync += [beats.eq(0), bursts.eq(0), error.eq(0)]
        return m
