"""Signs: magnitudes and sign bits to weights."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig

__all__ = ["SignApply"]


class SignApply(wiring.Component):
    """Negate the lanes whose sign bit is set: ``(value ^ s) + s`` in two's complement.

    Combinational. A zero stays zero whatever its sign; -128 with a sign stays -128, which the
    container rules out (magnitudes are 0 to 127).

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    values : In(8 * W)
        Codeword elements, lane 0 in the low bits.
    negative : In(W)
        Sign of each lane, 1 = negative.
    signed : In(1)
        If 0, signs are ignored and the values pass as they are (vq).
    weights : Out(8 * W)
        The result.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._lanes = config.bus_bits
        super().__init__(
            {
                "values": In(8 * config.bus_bits),
                "negative": In(config.bus_bits),
                "signed": In(1),
                "weights": Out(8 * config.bus_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane in range(self._lanes):
            negate = self.negative[lane] & self.signed
            value = self.values.word_select(lane, 8)
            m.d.comb += self.weights.word_select(lane, 8).eq((value ^ negate.replicate(8)) + negate)
        return m
