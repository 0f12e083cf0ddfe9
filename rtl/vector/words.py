"""Words of memory to beats of 16 bits, and back: rows of int8 or int16, each in whole words."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import values_layout

__all__ = ["Pack", "Spread"]

# A word holds two beats of int8, or one of int16. Of a row of int8 that has an odd number of
# beats, the second half of the last word is filling.


class _Halves(wiring.Component):
    """What both directions count: beats of a row."""

    def __init__(self, config: VectorConfig, word_flow: type, beat_flow: type) -> None:
        self._config = config
        super().__init__(
            {
                "narrow": In(1),
                "beats": In(range(config.row_beats + 1)),
                "words": word_flow(stream.Signature(16 * config.lanes)),
                "values": beat_flow(stream.Signature(values_layout(config))),
            }
        )

    def _count(self, m: Module) -> tuple[Signal, Signal]:
        """Whether a beat is the second one of its word, and whether it is the last one of it."""
        beat = Signal(range(self._config.row_beats))
        second, ends = Signal(), Signal()
        row_ends = beat == self.beats - 1
        m.d.comb += [second.eq(self.narrow & beat[0]), ends.eq(~self.narrow | second | row_ends)]
        with m.If(self.values.valid & self.values.ready):
            m.d.sync += beat.eq(Mux(row_ends, 0, beat + 1))
        return second, ends


class Spread(_Halves):
    """Cut words of rows into beats, int8 with its sign.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    narrow : In(1)
        Rows are int8.
    beats : In(range(config.row_beats + 1))
        Of a row.
    words : In(stream.Signature(16 * config.lanes))
    values : Out(stream.Signature(values_layout(config)))
    """

    def __init__(self, config: VectorConfig) -> None:
        super().__init__(config, In, Out)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        second, ends = self._count(m)
        word = self.words.payload
        for lane in range(self._config.lanes):
            low = word.word_select(lane, 8)
            high = word.word_select(self._config.lanes + lane, 8)
            m.d.comb += self.values.payload[lane].eq(
                Mux(
                    self.narrow,
                    Mux(second, high, low).as_signed(),
                    word.word_select(lane, 16).as_signed(),
                )
            )
        m.d.comb += [
            self.values.valid.eq(self.words.valid),
            self.words.ready.eq(self.values.ready & ends),
        ]
        return m


class Pack(_Halves):
    """Join beats of rows to words; what fills the last word of a row is zero.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    narrow : In(1)
        Rows are int8, which the values fit.
    beats : In(range(config.row_beats + 1))
        Of a row.
    values : In(stream.Signature(values_layout(config)))
    words : Out(stream.Signature(16 * config.lanes))
    """

    def __init__(self, config: VectorConfig) -> None:
        super().__init__(config, Out, In)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        second, ends = self._count(m)
        values = self.values.payload
        half = Cat(value[:8] for value in values)
        before = Signal(8 * self._config.lanes)
        m.d.comb += [
            self.words.payload.eq(
                Mux(
                    self.narrow,
                    Mux(second, Cat(before, half), Cat(half, Const(0, len(before)))),
                    values.as_value(),
                )
            ),
            self.words.valid.eq(self.values.valid & ends),
            self.values.ready.eq(self.words.ready | ~ends),
        ]
        with m.If(self.values.valid & self.values.ready):
            m.d.sync += before.eq(half)
        return m
