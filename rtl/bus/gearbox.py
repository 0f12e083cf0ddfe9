"""Gearbox: words of one width in, words of another out, in the same order of bytes."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Gearbox"]


class Gearbox(wiring.Component):
    """Join narrow words to wide ones, or cut wide words, lowest bits first.

    No register between input and output: the last narrow word of a wide one, and every part of a
    wide one, leaves in the cycle in which it is there. Whoever sends a number of words that is not
    a whole number of output words leaves a rest to the next sender.

    Parameters
    ----------
    put_bits, get_bits : int
        Widths; one divides the other.

    Members
    -------
    put : In(stream.Signature(put_bits))
    get : Out(stream.Signature(get_bits))
    """

    def __init__(self, put_bits: int, get_bits: int) -> None:
        if max(put_bits, get_bits) % min(put_bits, get_bits):
            raise ValueError(f"widths must divide each other, not {put_bits} and {get_bits}")
        self._put_bits, self._get_bits = put_bits, get_bits
        super().__init__(
            {"put": In(stream.Signature(put_bits)), "get": Out(stream.Signature(get_bits))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        put_bits, get_bits = self._put_bits, self._get_bits
        steps = max(put_bits, get_bits) // min(put_bits, get_bits)
        step = Signal(range(max(2, steps)))
        last = step == steps - 1
        moved = Signal()
        if steps > 1:
            with m.If(moved):
                m.d.sync += step.eq(Mux(last, 0, step + 1))
        if put_bits >= get_bits:
            m.d.comb += [
                self.get.payload.eq(self.put.payload.word_select(step, get_bits)),
                self.get.valid.eq(self.put.valid),
                self.put.ready.eq(self.get.ready & last),
                moved.eq(self.get.valid & self.get.ready),
            ]
        else:
            before = Signal(get_bits - put_bits)
            word = Cat(before, self.put.payload)
            m.d.comb += [
                self.get.payload.eq(word),
                self.get.valid.eq(self.put.valid & last),
                self.put.ready.eq(self.get.ready | ~last),
                moved.eq(self.put.valid & self.put.ready),
            ]
            with m.If(moved):
                m.d.sync += before.eq(word[put_bits:])
        return m
