"""Multiplier for the checks: small and slow, one bit per cycle."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SerialMultiplier"]


class SerialMultiplier(wiring.Component):
    """``product = a * b``, as many cycles after ``start`` as ``a`` has bits.

    Parameters
    ----------
    a_bits, b_bits : int

    Members
    -------
    start : In(1)
        Take ``a`` and ``b``; what was going on is forgotten.
    a : In(a_bits)
    b : In(b_bits)
    done : Out(1)
        ``product`` is that of the last start.
    product : Out(a_bits + b_bits)
    """

    def __init__(self, a_bits: int, b_bits: int) -> None:
        self._a_bits, self._b_bits = a_bits, b_bits
        super().__init__(
            {
                "start": In(1),
                "a": In(a_bits),
                "b": In(b_bits),
                "done": Out(1, init=1),
                "product": Out(a_bits + b_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(self._a_bits)
        addend = Signal(self._a_bits + self._b_bits)
        m.d.comb += self.done.eq(left == 0)
        with m.If(self.start):
            m.d.sync += [left.eq(self.a), addend.eq(self.b), self.product.eq(0)]
        with m.Elif(~self.done):
            m.d.sync += [left.eq(left >> 1), addend.eq(addend << 1)]
            with m.If(left[0]):
                m.d.sync += self.product.eq(self.product + addend)
        return m
