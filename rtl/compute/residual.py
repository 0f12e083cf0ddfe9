"""Residual addition: finished outputs plus a tensor that was there before."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.compute.config import ArrayConfig
from rtl.compute.requantize import round_shift, word_layout

__all__ = ["ADDITION", "Residual", "sum_layout"]

#: ``clamp((x · m[0] + y · m[1] + 2^(s-1)) >> s)`` of the integer graph's ``add``.
ADDITION = data.StructLayout(
    {"own": signed(16), "other": signed(16), "shift": 6, "relu": 1, "enable": 1}
)
_SUM_BITS = 48


def sum_layout(config: ArrayConfig) -> data.StructLayout:
    """Two words to add."""
    return data.StructLayout(
        {"own": word_layout(config), "other": word_layout(config), "addition": ADDITION}
    )


class Residual(wiring.Component):
    """Add two words of int8, ``scale_lanes`` outputs per cycle; or let the first one pass.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    words : In(stream.Signature(sum_layout(config)))
        Taken once every ``rows / scale_lanes`` cycles, or in every cycle while not ``enable``.
    sums : Out(stream.Signature(word_layout(config)))
        In order.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "words": In(stream.Signature(sum_layout(config))),
                "sums": Out(stream.Signature(word_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        lanes, rounds = config.scale_lanes, config.rows // config.scale_lanes
        m = Module()
        number = Signal(range(max(2, rounds)))
        word, addition = self.words.payload, self.words.p.addition
        stage = data.StructLayout(
            {"valid": 1, "last": 1, "number": range(max(2, rounds)), "addition": ADDITION}
        )
        multiplied = Signal(stage)
        own = Signal(word_layout(config))
        products = Signal(data.ArrayLayout(signed(_SUM_BITS), lanes))
        advance = Signal()
        last = ~addition.enable | (number == rounds - 1)
        m.d.comb += [
            advance.eq(~self.sums.valid | self.sums.ready),
            self.words.ready.eq(advance & last),
        ]
        with m.If(advance):
            m.d.sync += [
                multiplied.valid.eq(self.words.valid),
                multiplied.last.eq(last),
                multiplied.number.eq(number),
                multiplied.addition.eq(addition),
                own.eq(word.own),
                self.sums.valid.eq(multiplied.valid & multiplied.last),
            ]
            with m.If(self.words.valid):
                m.d.sync += number.eq(Mux(last, 0, number + 1))
        results = []
        for lane in range(lanes):
            x, y = Signal(signed(8), name=f"x_{lane}"), Signal(signed(8), name=f"y_{lane}")
            with m.Switch(number):
                for r in range(rounds):
                    with m.Case(r):
                        m.d.comb += [x.eq(word.own[r * lanes + lane])]
                        m.d.comb += [y.eq(word.other[r * lanes + lane])]
            with m.If(advance):
                m.d.sync += products[lane].eq(x * addition.own + y * addition.other)
            chosen = multiplied.addition
            results.append(round_shift(m, products[lane], chosen.shift, chosen.relu, lane))
        for o in range(config.rows):
            r, lane = divmod(o, lanes)
            with m.If(advance & multiplied.valid):
                with m.If(~multiplied.addition.enable):
                    m.d.sync += self.sums.payload[o].eq(own[o])
                with m.Elif(multiplied.number == r):
                    m.d.sync += self.sums.payload[o].eq(results[lane])
        return m
