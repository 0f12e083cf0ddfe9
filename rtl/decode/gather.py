"""Output register: whole beats pass, beats of int8 are gathered eight to one."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig

__all__ = ["Gather", "weight_layout"]

#: int8 weights take eight beats of the bus for one output beat.
PIECES = 8


def weight_layout(config: StreamerConfig) -> data.StructLayout:
    """One output beat: W weights, lane 0 in the low byte, in stream order."""
    return data.StructLayout({"data": 8 * config.bus_bits, "last": 1})


class Gather(wiring.Component):
    """Register that gives every method the same output format.

    A bus beat of int8 holds W / 8 weights. They are collected in the register itself, so the
    int8 path needs no buffer of its own.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    valid : In(1)
        ``weights`` or ``raw_beat`` is to be taken in this cycle. Ignored unless ``enable``.
    raw : In(1)
        Take ``raw_beat``, else ``weights``.
    last : In(1)
        It is the last of its layer.
    weights : In(8 * W)
        A decoded beat.
    raw_beat : In(W)
        A bus beat of int8 weights.
    enable : Out(1)
        The register can take a beat. The whole pipeline advances with it.
    output : Out(stream.Signature(weight_layout(config)))
        The weights. In a layer's last beat, lanes behind the end of its stream are zero (int8)
        or decode to whatever the padding says (ssvq, vq); the receiver counts its weights.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "valid": In(1),
                "raw": In(1),
                "last": In(1),
                "weights": In(8 * config.bus_bits),
                "raw_beat": In(config.bus_bits),
                "enable": Out(1),
                "output": Out(stream.Signature(weight_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        bus_bits = self._config.bus_bits
        m = Module()
        piece = Signal(range(PIECES))
        taken = self.output.p.data
        m.d.comb += self.enable.eq(~self.output.valid | self.output.ready)
        with m.If(self.enable):
            m.d.sync += self.output.valid.eq(
                self.valid & (~self.raw | (piece == PIECES - 1) | self.last)
            )
        with m.If(self.enable & self.valid):
            m.d.sync += self.output.p.last.eq(self.last)
            with m.If(~self.raw):
                m.d.sync += taken.eq(self.weights)
            with m.Else():
                m.d.sync += piece.eq(piece + 1)
                for p in range(PIECES):
                    part = taken.word_select(p, bus_bits)
                    with m.If(piece == p):
                        m.d.sync += part.eq(self.raw_beat)
                    with m.Elif(piece == 0):
                        m.d.sync += part.eq(0)
                with m.If(self.last):
                    m.d.sync += piece.eq(0)
        return m
