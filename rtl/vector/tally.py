"""Tally: the sum of what each row has been mapped to."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.lanes import results_layout, tag_layout
from rtl.vector.reduce import tree

__all__ = ["Tally"]


class Tally(wiring.Component):
    """Add up results of 16 bits, without sign, row by row.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    ended : In(tag_layout(config))
        A beat to add, if valid. No row may end before the sum of the one before is taken.
    results : In(results_layout(config))
    sums : Out(stream.Signature(config.total_bits))
        Three cycles after a row's last beat.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "ended": In(tag_layout(config)),
                "results": In(results_layout(config)),
                "sums": Out(stream.Signature(config.total_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self._config.total_bits
        of_beat, total = Signal(bits), Signal(bits)
        there, last, first, ended = Signal(), Signal(), Signal(init=1), Signal()
        m.d.sync += [
            there.eq(self.ended.valid),
            last.eq(self.ended.row_ends),
            of_beat.eq(tree([one[:16] for one in self.results], lambda a, b: a + b)),
            ended.eq(there & last),
        ]
        with m.If(there):
            m.d.sync += [total.eq(Mux(first, 0, total) + of_beat), first.eq(last)]
        with m.If(ended):
            m.d.sync += [self.sums.payload.eq(total), self.sums.valid.eq(1)]
        with m.Elif(self.sums.ready):
            m.d.sync += self.sums.valid.eq(0)
        return m
