"""Division and square root, one bit per cycle."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["QUOTIENT_BITS", "ROOT_BITS", "Reciprocal", "Root"]

#: Of a reciprocal; its first bit is always 1.
QUOTIENT_BITS = 15
#: Of a root, of twice as many.
ROOT_BITS = 16


class Reciprocal(wiring.Component):
    """``2**(14 + n) / v``, rounded down, for a ``v`` of ``n`` bits; 14 cycles after ``start``.

    A power of two would give 2**15; it gives 2**15 - 1, because its remainder is never less than
    itself.

    Parameters
    ----------
    bits : int
        Of ``value``.

    Members
    -------
    start : In(1)
        Take ``value``, which must not be 0.
    value : In(bits)
    done : Out(1)
        ``quotient`` and ``length`` are those of the last start.
    quotient : Out(15)
        2**14 to 2**15 - 1.
    length : Out(range(bits + 1))
        ``n``.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__(
            {
                "start": In(1),
                "value": In(bits),
                "done": Out(1),
                "quotient": Out(QUOTIENT_BITS),
                "length": Out(range(bits + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        length = Signal.like(self.length)
        for i in range(self._bits):
            with m.If(self.value[i]):
                m.d.comb += length.eq(i + 1)
        left = Signal(range(QUOTIENT_BITS))
        divisor = Signal(self._bits)
        rest = Signal(self._bits + 1)
        twice = rest << 1
        fits = twice >= divisor
        m.d.comb += self.done.eq(left == 0)
        with m.If(self.start):
            m.d.sync += [
                divisor.eq(self.value),
                self.length.eq(length),
                rest.eq((Const(1, self._bits + 1) << length) - self.value),
                self.quotient.eq(1),
                left.eq(QUOTIENT_BITS - 1),
            ]
        with m.Elif(~self.done):
            m.d.sync += [
                rest.eq(Mux(fits, twice - divisor, twice)),
                self.quotient.eq(Cat(fits, self.quotient)),
                left.eq(left - 1),
            ]
        return m


class Root(wiring.Component):
    """Square root of a number of 32 bits, rounded down; 16 cycles after ``start``.

    Members
    -------
    start : In(1)
    value : In(32)
    done : Out(1)
        ``root`` is that of the last start.
    root : Out(16)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "value": In(2 * ROOT_BITS),
                "done": Out(1),
                "root": Out(ROOT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(range(ROOT_BITS + 1))
        digits = Signal(2 * ROOT_BITS)
        rest = Signal(ROOT_BITS + 2)
        now = Cat(digits[-2:], rest)
        trial = Cat(Const(1, 2), self.root)
        fits = now >= trial
        m.d.comb += self.done.eq(left == 0)
        with m.If(self.start):
            m.d.sync += [
                digits.eq(self.value),
                rest.eq(0),
                self.root.eq(0),
                left.eq(ROOT_BITS),
            ]
        with m.Elif(~self.done):
            m.d.sync += [
                digits.eq(digits << 2),
                rest.eq(Mux(fits, now - trial, now)),
                self.root.eq(Cat(fits, self.root)),
                left.eq(left - 1),
            ]
        return m
