"""Operands by the kind of a round."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.layer import VECTOR_LAYER, VectorOp
from rtl.vector.operands import OPERANDS, choose_operands
from rtl.vector.rounds import Round
from rtl.vector.scalar import ROW_NUMBERS
from tests.rtl.vector.bench import simulate


class Chooser(wiring.Component):
    kind: In(Round)
    layer: In(VECTOR_LAYER)
    numbers: In(ROW_NUMBERS)
    found: Out(OPERANDS)

    def elaborate(self, platform):
        m = Module()
        first = Signal(init=1)
        m.d.comb += self.found.eq(choose_operands(m, self.kind, self.layer, self.numbers, first))
        m.d.sync += first.eq(first)
        return m


def test_what_lanes_have_in_common():
    dut = Chooser()
    common = {
        Round.PAIR: (-3, 5, 7), Round.FIXED: (-3, 0, 7), Round.CODE: (127, 0, 15),
        Round.SHARE: (99, 0, 11), Round.MEAN: (99, 0, 11), Round.SUM: (1, 0, 0),
        Round.POWER: (1, 0, 0), Round.TABLE: (0, 256, 7),
    }  # fmt: skip

    async def bench(ctx):
        ctx.set(dut.layer, {"op": VectorOp.ADD, "own": -3, "other": 5, "shift": 7})
        ctx.set(dut.numbers, {"scale": 99, "offset": 1, "shift": 11})
        for kind, want in common.items():
            ctx.set(dut.kind, kind)
            names = ("common_b", "common_d", "common_shift")
            assert tuple(ctx.get(getattr(dut.found, name)) for name in names) == want, kind
            bias = kind == Round.MEAN
            assert ctx.get(dut.found.bias) == bias, "the first row of a sum has none"
        await ctx.tick()

    simulate(dut, bench)
