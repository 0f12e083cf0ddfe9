"""Group zeros: beats as they lie in the file into one row of zeros per block and group."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.decode.codes import CODE_BITS_MAX

__all__ = ["ZeroRows", "zero_beat_layout", "zero_row_layout"]


def zero_beat_layout(config: StreamerConfig) -> data.StructLayout:
    """One beat of zeros, a byte each."""
    return data.StructLayout({"data": config.bus_bits, "last": 1})  # last of its layer


def zero_row_layout(config: StreamerConfig) -> data.StructLayout:
    """The zeros of one group of inputs, first output of the block in the low bits."""
    return data.StructLayout({"zeros": CODE_BITS_MAX * config.tile_outputs, "last": 1})


class ZeroRows(wiring.Component):
    """Cut beats into rows, or join them, whichever is longer.

    A layer's zeros are whole granules, and those are whole rows: each layer starts a beat and a
    row. Rows of padding come out like all others.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    beats : In(stream.Signature(zero_beat_layout(config)))
        Zeros in stream order.
    rows : Out(stream.Signature(zero_row_layout(config)))
        Rows in the same order. ``last`` marks the last one of the layer's granules.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "beats": In(stream.Signature(zero_beat_layout(config))),
                "rows": Out(stream.Signature(zero_row_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        beat = self.beats.payload
        zeros = Cat(beat.data.word_select(i, 8)[:CODE_BITS_MAX] for i in range(config.bus_bytes))
        rows_per_beat = config.bus_bytes // config.tile_outputs
        beats_per_row = config.tile_outputs // config.bus_bytes
        steps = max(rows_per_beat, beats_per_row)
        step = Signal(range(max(2, steps)))
        last_step = step == steps - 1
        moved = Signal()
        with m.If(moved):
            m.d.sync += step.eq(Mux(last_step, 0, step + 1))
        if beats_per_row <= 1:
            m.d.comb += [
                self.rows.p.zeros.eq(zeros.word_select(step, len(self.rows.p.zeros))),
                self.rows.valid.eq(self.beats.valid),
                self.beats.ready.eq(self.rows.ready & last_step),
                moved.eq(self.rows.valid & self.rows.ready),
            ]
        else:
            before = Signal(len(self.rows.p.zeros) - len(zeros))
            m.d.comb += [
                self.rows.p.zeros.eq(Cat(before, zeros)),
                self.rows.valid.eq(self.beats.valid & last_step),
                self.beats.ready.eq(self.rows.ready | ~last_step),
                moved.eq(self.beats.valid & self.beats.ready),
            ]
            with m.If(moved):
                m.d.sync += before.eq(Cat(before, zeros)[len(zeros) :])
        m.d.comb += self.rows.p.last.eq(beat.last & last_step)
        return m
