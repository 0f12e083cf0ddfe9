"""Lane: one value of every beat through two multipliers, an adder and a shifter."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.channels import CHANNEL
from rtl.vector.layer import VECTOR_LAYER, VectorOp
from rtl.vector.operands import OPERANDS
from rtl.vector.table import ENTRY

__all__ = ["SUM_BITS", "WIDE_MAX", "Lane"]

#: Largest magnitude of an int16 value, two digits of int8: 256 * 127 + 127.
WIDE_MAX = 32639
#: Of products of 32 by 16 bits, what is subtracted from them, and what rounds them.
SUM_BITS = 48
_NOTHING = 31  # a shift that leaves nothing of a power of two
_PRODUCTS = data.StructLayout(
    {"a": signed(17), "b": signed(16), "c": signed(17), "d": signed(16), "wide": 1, "shift": 6}
)


class Lane(wiring.Component):
    """Registers for memories' data, operands, products, sum and result; a value per cycle.

    Two multipliers of 17 by 16 bits make one of 32 by 16, or add up two products.

    Members
    -------
    advance : In(1)
        All registers are loaded.
    layer : In(VECTOR_LAYER)
    x : In(signed(16))
        What the row buffer has read, for the round after this cycle's.
    operands : In(OPERANDS)
        Of the round whose data are there: ``held``,
    later : In(1)
        or the result of the round before, if it is not the first one of its beat,
    scale : In(signed(32))
        of the row,
    neighbour, other : In(signed(16))
        what the neighbour holds, and the second operand,
    channel : In(CHANNEL)
    entry : In(ENTRY)
        what the tables have at the ``place`` of the cycle before.
    returns : In(1)
        The result has a further round.
    offset : In(signed(SUM_BITS))
        To subtract from the sum of the round before the last one.
    ends, final, live : In(1)
        Of the sum: its beat has no further round, is an output, and has this lane.
    held : Out(signed(16))
    place : Out(8)
    result : Out(signed(32))
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "advance": In(1),
                "layer": In(VECTOR_LAYER),
                "x": In(signed(16)),
                "operands": In(OPERANDS),
                "later": In(1),
                "scale": In(signed(32)),
                "neighbour": In(signed(16)),
                "other": In(signed(16)),
                "channel": In(CHANNEL),
                "entry": In(ENTRY),
                "returns": In(1),
                "offset": In(signed(SUM_BITS)),
                "ends": In(1),
                "final": In(1),
                "live": In(1),
                "held": Out(signed(16)),
                "place": Out(8),
                "result": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sought = Mux(self.layer.wide, self.x[8:], self.x[:8])
        m.d.comb += self.place.eq(Mux(self.returns, self.result[:8], sought ^ 0x80))
        back = Signal(signed(32))
        chosen = Signal(_PRODUCTS)
        self._choose(m, back, chosen)

        taken = Signal(_PRODUCTS)
        low, high = Signal(signed(33)), Signal(signed(33))
        wide = Signal()
        shifts = [Signal(6, name=f"shift_{name}") for name in ("product", "sum")]
        total = Signal(signed(SUM_BITS))
        fine, rounded = Signal(signed(SUM_BITS + 1)), Signal(signed(SUM_BITS))
        m.d.comb += [
            # The bit below the last one rounds.
            fine.eq(Cat(Const(0, 1), total).as_signed() >> shifts[1]),
            rounded.eq((fine >> 1) + fine[0]),
        ]
        with m.If(self.advance):
            m.d.sync += [
                self.held.eq(self.x),
                back.eq(self.result),
                taken.eq(chosen),
                low.eq(taken.a * taken.b),
                high.eq(taken.c * taken.d),
                wide.eq(taken.wide),
                shifts[0].eq(taken.shift),
                total.eq(low + Mux(wide, high << 16, high) - self.offset),
                shifts[1].eq(shifts[0]),
                self.result.eq(Mux(self.final, _saturated(rounded, self.layer.narrow), rounded)),
            ]
            with m.If(self.ends & ~self.live):
                m.d.sync += self.result.eq(0)
        return m

    def _choose(self, m: Module, back: Value, chosen: data.View) -> None:
        """Operands and shift of the round."""
        layer, operands, channel, entry = self.layer, self.operands, self.channel, self.entry
        x, y = self.held, Signal(signed(16))
        value, bias, whole = (Signal(signed(32), name=n) for n in ("value", "bias", "whole"))
        own, octaves = Signal(signed(16)), back[8:]
        entry_signed = entry.value.as_signed()
        with m.If(operands.value):
            m.d.comb += value.eq(Mux(self.later, back, x))
        with m.If(operands.bias):
            m.d.comb += bias.eq(channel.bias)
        with m.If(layer.op != VectorOp.ROTARY):
            m.d.comb += y.eq(self.other)
        with m.Else():  # half a row apart, the partner is read in the cycle behind x
            m.d.comb += y.eq(Mux(layer.halves, self.x, self.neighbour))
        m.d.comb += [
            whole.eq(Mux(operands.scale, self.scale, value + bias)),
            own[:8].eq(Mux(operands.low, x[:8], 0)),
            own[8:].eq(Mux(operands.high, x[8:], 0)),
            chosen.a.eq(
                _pick(
                    operands.a,
                    whole[:16],
                    Cat(x, x[-1] & ~operands.unsigned).as_signed(),
                    entry.difference,
                    entry.value,
                )
            ),
            chosen.b.eq(_pick(operands.b, own, y, channel.multiplier, operands.common_b)),
            chosen.c.eq(_pick(operands.c, whole[16:].as_signed(), y, entry_signed, 0)),
            chosen.d.eq(
                _pick(operands.d, chosen.b, operands.common_d, channel.bias[:16].as_signed(), 0)
            ),
            chosen.wide.eq(operands.wide),
            chosen.shift.eq(
                _pick(
                    operands.shift,
                    operands.common_shift,
                    channel.shift,
                    Mux(octaves[4:].any(), _NOTHING, octaves[:4]),
                    0,
                )
            ),
        ]


def _pick(select: Value, *options: Value | int) -> Value:
    """One of four."""
    low, high = (Mux(select[0], options[i + 1], options[i]) for i in (0, 2))
    return Mux(select[1], high, low)


def _saturated(value: Value, narrow: Value) -> Value:
    """Into the range of int8, or of int16, whose ends are +-0x7F7F: seen by bits alone."""
    negative = value[-1]
    upper = value[16:] ^ negative.replicate(len(value) - 16)
    beyond = upper.any() | (value[15] ^ negative)  # of 16 bits
    top = value[7:15]  # all of it set from 0x7F80 on, none but its lowest down to -0x7F7F
    lowest = ~top[1:].any() & (~top[0] | ~value[:7].any())
    wide_over = beyond | Mux(negative, lowest, top.all())
    narrow_over = beyond | Mux(negative, ~top.all(), top.any())
    end = Mux(narrow, Mux(negative, -128, 127), Mux(negative, -WIDE_MAX, WIDE_MAX))
    return Mux(Mux(narrow, narrow_over, wide_over), end, value[:16].as_signed())
