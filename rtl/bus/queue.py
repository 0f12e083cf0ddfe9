"""Queue: a FIFO between two streams of any payload."""

from amaranth import Module, Shape
from amaranth.lib import stream, wiring
from amaranth.lib.data import Layout
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

__all__ = ["StreamQueue"]


class StreamQueue(wiring.Component):
    """First in, first out, with one cycle from entry to exit and no pause when full or empty.

    Parameters
    ----------
    shape : Layout or int
        Payload; an integer is its width in bits.
    depth : int
        Entries, at least 2.

    Members
    -------
    put : In(stream.Signature(shape))
        Not ready while the queue is full.
    get : Out(stream.Signature(shape))
        The oldest entry.
    """

    def __init__(self, shape: Layout | int, depth: int) -> None:
        self._width_bits = Shape.cast(shape).width
        self._depth = depth
        super().__init__({"put": In(stream.Signature(shape)), "get": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=self._width_bits, depth=self._depth)
        m.d.comb += [
            fifo.w_data.eq(self.put.payload),
            fifo.w_en.eq(self.put.valid),
            self.put.ready.eq(fifo.w_rdy),
            self.get.payload.eq(fifo.r_data),
            self.get.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.get.ready),
        ]
        return m
