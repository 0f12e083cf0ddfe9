"""Operands of each round: what a lane multiplies, and what all lanes have in common."""

from amaranth import Module, Signal, Value, signed
from amaranth.lib import data

from rtl.vector.layer import VectorOp
from rtl.vector.rounds import Round

__all__ = ["OPERANDS", "choose_operands"]

#: Sources by number, so that each operand of a lane is one small multiplexer.
_A = {"whole": 0, "x": 1, "difference": 2, "entry": 3}
_B = {"x": 0, "y": 1, "channel": 2, "common": 3}
_C = {"whole": 0, "y": 1, "entry": 2, "zero": 3}
_D = {"b": 0, "common": 1, "bias": 2}
_SHIFT = {"common": 0, "channel": 1, "octaves": 2}

#: A lane gives ``a · b + c · d``, or ``(a + c · 2**16) · b`` if ``wide``; ``a`` and ``c`` are the
#: halves of ``whole`` then, which is the row's scale or a value and a bias, where there are such.
OPERANDS = data.StructLayout(
    {
        "a": 2,
        "b": 2,
        "c": 2,
        "d": 2,
        "shift": 2,
        "wide": 1,
        "scale": 1,
        "value": 1,
        "bias": 1,
        "low": 1,  # bytes of x that count as b
        "high": 1,
        "unsigned": 1,  # x as a
        "common_b": signed(16),
        "common_d": signed(16),
        "common_shift": 6,
    }
)


def choose_operands(
    m: Module, kind: Value, layer: data.View, numbers: data.View, first_row: Value
) -> data.View:
    """By the kind of a round."""
    found = Signal(OPERANDS)
    rotates = layer.op == VectorOp.ROTARY

    def whole(b: str, multiplier: Value | int, places: Value | int, **bits: Value | int) -> None:
        m.d.comb += [
            found.wide.eq(1),
            found.b.eq(_B[b]),
            found.common_b.eq(multiplier),
            found.common_shift.eq(places),
            *(found[name].eq(bit) for name, bit in ({"value": 1} | bits).items()),
        ]

    def halves(a: str, b: str, c: str, *others: object) -> None:
        m.d.comb += [found.a.eq(_A[a]), found.b.eq(_B[b]), found.c.eq(_C[c]), *others]

    m.d.comb += [found.low.eq(1), found.high.eq(1)]
    with m.Switch(kind):
        with m.Case(Round.ROW):
            whole("x", 0, numbers.shift, scale=1)
        with m.Case(Round.PAIR):
            halves("x", "common", "y", found.d.eq(_D["common"]))
            m.d.comb += [
                found.common_b.eq(layer.own),
                found.common_d.eq(layer.other),
                found.common_shift.eq(layer.shift),
            ]
            with m.If(rotates):
                halves("x", "channel", "y", found.d.eq(_D["bias"]), found.common_shift.eq(0))
        with m.Case(Round.PRODUCT):
            halves("x", "y", "zero")
        with m.Case(Round.TABLE):
            halves("difference", "x", "entry", found.d.eq(_D["common"]))
            m.d.comb += [
                found.low.eq(layer.wide),
                found.high.eq(0),
                found.common_d.eq(256),
                found.common_shift.eq(layer.shift),
            ]
        with m.Case(Round.POWER):
            halves("entry", "common", "zero", found.shift.eq(_SHIFT["octaves"]))
            m.d.comb += found.common_b.eq(1)
        with m.Case(Round.CHANNEL):
            whole("channel", 0, 0, bias=1, shift=_SHIFT["channel"])
        with m.Case(Round.FIXED):
            whole("common", layer.own, layer.shift)
        with m.Case(Round.CODE):
            whole("common", 127, 15)
        with m.Case(Round.SHARE):
            halves("x", "common", "zero", found.unsigned.eq(1))
            m.d.comb += [found.common_b.eq(numbers.scale), found.common_shift.eq(numbers.shift)]
        with m.Case(Round.SUM):
            whole("common", 1, 0, bias=~first_row)
        with m.Case(Round.MEAN):
            whole("common", numbers.scale, numbers.shift, value=0, bias=1)
    return found
