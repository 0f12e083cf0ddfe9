"""Codes: grouped integers without a codebook, code and zero to weight."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig

__all__ = ["CODE_BITS_MAX", "CodeOffset", "code_lanes"]

#: Widest code of a grouped method.
CODE_BITS_MAX = 4


def code_lanes(config: StreamerConfig) -> data.ArrayLayout:
    """Codes of one step, one per lane."""
    return data.ArrayLayout(CODE_BITS_MAX, config.bus_bits)


class CodeOffset(wiring.Component):
    """Subtract its zero from every code; three cycles of ``enable``, as long as the codebook takes.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    enable : In(1)
        Advance the pipeline.
    lanes : In(code_lanes(config))
        Codes.
    zeros : In(4 * tile_outputs)
        Lane l is of output ``l mod tile_outputs`` of its block, so one row serves all lanes.
    weights : Out(8 * W)
        Code minus zero, lane 0 in the low bits.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "lanes": In(code_lanes(config)),
                "zeros": In(CODE_BITS_MAX * config.tile_outputs),
                "weights": Out(8 * config.bus_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        lanes, zeros = self.lanes, self.zeros
        for depth in range(2):
            lanes_then = Signal(code_lanes(config), name=f"lanes_{depth}")
            zeros_then = Signal(zeros.shape(), name=f"zeros_{depth}")
            with m.If(self.enable):
                m.d.sync += [lanes_then.eq(lanes), zeros_then.eq(zeros)]
            lanes, zeros = lanes_then, zeros_then
        for lane in range(config.bus_bits):
            zero = zeros.word_select(lane % config.tile_outputs, CODE_BITS_MAX)
            weight = Signal(range(-(1 << CODE_BITS_MAX) + 1, 1 << CODE_BITS_MAX), name=f"w_{lane}")
            with m.If(self.enable):
                m.d.sync += weight.eq(lanes[lane] - zero)
            m.d.comb += self.weights.word_select(lane, 8).eq(weight)
        return m
