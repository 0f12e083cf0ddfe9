"""Pieces: rows and columns of what lies in memory, as one region after another."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import REGION

__all__ = ["LOOPS", "PIECES", "PITCH", "PieceWalk"]

#: Loops around a piece, the innermost first.
LOOPS = ("inner", "middle", "outer")
#: How often a loop goes round, and how many beats of the bus its address moves on each time.
PITCH = data.StructLayout({"count": 16, "pitch": 32})
#: ``run`` beats at ``address``, and again and again at other places. All counts at least 1.
PIECES = data.StructLayout({"address": 64, "run": 24, **dict.fromkeys(LOOPS, PITCH)})


class PieceWalk(wiring.Component):
    """Give the regions of pieces, one per cycle.

    Parameters
    ----------
    beat_bytes : int
        Of the bus; the unit of the regions.

    Members
    -------
    pieces : In(stream.Signature(PIECES))
        Taken with the last region. ``address`` is in bytes, and a multiple of a beat.
    region : Out(stream.Signature(REGION))
        In beats.
    """

    def __init__(self, beat_bytes: int) -> None:
        self._shift = beat_bytes.bit_length() - 1
        super().__init__(
            {"pieces": In(stream.Signature(PIECES)), "region": Out(stream.Signature(REGION))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pieces = self.pieces.payload
        step = Signal()
        m.d.comb += [
            self.region.valid.eq(self.pieces.valid),
            self.region.p.granules.eq(pieces.run),
            step.eq(self.region.valid & self.region.ready),
        ]
        carries: Value = step
        moves = []
        for name in LOOPS:
            loop = getattr(pieces, name)
            number, at = Signal(16, name=f"{name}_number"), Signal(58, name=f"{name}_at")
            last = Signal(name=f"{name}_last")
            m.d.comb += last.eq(number == loop.count - 1)
            with m.If(carries):
                m.d.sync += [
                    number.eq(Mux(last, 0, number + 1)),
                    at.eq(Mux(last, 0, at + loop.pitch)),
                ]
            carries = carries & last
            moves.append(at)
        offset = moves[0] + moves[1] + moves[2]
        m.d.comb += [
            self.region.p.address.eq((pieces.address >> self._shift) + offset),
            self.pieces.ready.eq(carries),
        ]
        return m
