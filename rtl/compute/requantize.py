"""Requantiser: finished sums to int8."""

from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.compute.accumulate import totals_layout
from rtl.compute.config import ArrayConfig

__all__ = ["SCALING", "Requantizer", "block_scaling", "round_shift", "word_layout"]

#: Numbers of one output, from the integer graph: ``clamp((sum + bias) · multiplier >> shift)``.
SCALING = data.StructLayout({"bias": signed(32), "multiplier": signed(16), "shift": 6})
_PRODUCT_BITS = 48


def block_scaling(config: ArrayConfig) -> data.ArrayLayout:
    """Numbers of all outputs of a block."""
    return data.ArrayLayout(SCALING, config.rows)


def word_layout(config: ArrayConfig) -> data.ArrayLayout:
    """Finished outputs of one block at one position."""
    return data.ArrayLayout(signed(8), config.rows)


def round_shift(m: Module, value: Value, shift: Value, relu: Value, number: int) -> Value:
    """``clamp((value + 2^(shift-1)) >> shift, low, 127)``, low being 0 or -128."""
    half = (Const(1, _PRODUCT_BITS) << shift)[1:_PRODUCT_BITS]
    rounded = Signal(signed(_PRODUCT_BITS), name=f"rounded_{number}")
    shifted = Signal(signed(_PRODUCT_BITS), name=f"value_{number}")
    m.d.comb += [rounded.eq(value + half), shifted.eq(rounded >> shift)]
    low = Mux(relu, 0, -128)
    return Mux(shifted > 127, 127, Mux(shifted < low, low, shifted))


class Requantizer(wiring.Component):
    """``scale_lanes`` outputs per cycle through one multiplier, adder and shifter each.

    Bit for bit the integer graph's ``requantise``: ties round up, then the result saturates.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    positions : In(stream.Signature(...))
        ``totals``, their ``scaling`` and whether to end with a ReLU. Taken once every
        ``rows / scale_lanes`` cycles.
    words : Out(stream.Signature(word_layout(config)))
        int8 outputs, in order, ``rows / scale_lanes + 2`` cycles later.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        payload = data.StructLayout(
            {"totals": totals_layout(config), "scaling": block_scaling(config), "relu": 1}
        )
        super().__init__(
            {
                "positions": In(stream.Signature(payload)),
                "words": Out(stream.Signature(word_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        lanes, rounds = config.scale_lanes, config.rows // config.scale_lanes
        m = Module()
        number = Signal(range(max(2, rounds)))
        advance = Signal()
        position = self.positions.payload
        m.d.comb += [
            advance.eq(~self.words.valid | self.words.ready),
            self.positions.ready.eq(advance & (number == rounds - 1)),
        ]

        def stage(name: str) -> Signal:
            return Signal(
                data.StructLayout(
                    {"valid": 1, "number": range(max(2, rounds)), "relu": 1, "last": 1}
                ),
                name=name,
            )

        multiplied, shifted = stage("multiplied"), stage("shifted")
        products = Signal(data.ArrayLayout(signed(_PRODUCT_BITS), lanes))
        shifts = Signal(data.ArrayLayout(6, lanes))
        results = Signal(data.ArrayLayout(signed(8), lanes))
        word = Signal(word_layout(config))

        with m.If(advance):
            m.d.sync += [
                multiplied.valid.eq(self.positions.valid),
                multiplied.number.eq(number),
                multiplied.relu.eq(position.relu),
                multiplied.last.eq(number == rounds - 1),
                shifted.eq(multiplied),
                self.words.valid.eq(shifted.valid & shifted.last),
            ]
            with m.If(self.positions.valid):
                m.d.sync += number.eq(Mux(number == rounds - 1, 0, number + 1))
        for lane in range(lanes):
            total, scaling = Signal(signed(32), name=f"total_{lane}"), Signal(SCALING)
            with m.Switch(number):
                for r in range(rounds):
                    with m.Case(r):
                        m.d.comb += [
                            total.eq(position.totals[r * lanes + lane]),
                            scaling.eq(position.scaling[r * lanes + lane]),
                        ]
            with m.If(advance):
                m.d.sync += [
                    products[lane].eq((total + scaling.bias)[:32].as_signed() * scaling.multiplier),
                    shifts[lane].eq(scaling.shift),
                    results[lane].eq(
                        round_shift(m, products[lane], shifts[lane], multiplied.relu, lane)
                    ),
                ]
        for o in range(config.rows):
            r, lane = divmod(o, lanes)
            m.d.comb += self.words.payload[o].eq(word[o])
            with m.If(advance & shifted.valid & (shifted.number == r)):
                m.d.sync += word[o].eq(results[lane])
        return m
