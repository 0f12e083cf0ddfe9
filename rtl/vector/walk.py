"""Which lanes of a beat count: those before the end of its row, or of what is valid of it."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import VECTOR_LAYER

__all__ = ["RowWalk"]


class RowWalk(wiring.Component):
    """Count the beats of a layer's rows, and the lanes of each that count.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(VECTOR_LAYER)
    start : In(1)
        Go to the first beat of the first row.
    step : In(1)
        Go to the next beat.
    again : In(1)
        With the ``step`` of a row's last beat: to its first one once more.
    beat : Out(range(config.row_beats))
    live : Out(config.lanes)
    row_ends : Out(1)
        It is the last beat of its row,
    row : Out(17)
        of which there have been as many before.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(VECTOR_LAYER),
                "start": In(1),
                "step": In(1),
                "again": In(1),
                "beat": Out(range(config.row_beats)),
                "live": Out(config.lanes),
                "row_ends": Out(1),
                "row": Out(17),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer
        lanes, log2 = config.lanes, config.log2_lanes
        length = Signal(14)  # of the row
        left = Signal(14)  # of it, from this beat on
        longer = layer.longer & (length < layer.length_most)
        following = Mux(longer & ~self.again, length + 1, length)
        m.d.comb += self.row_ends.eq(self.beat == (layer.channels - 1) >> log2)
        for lane in range(lanes):
            m.d.comb += self.live[lane].eq(left > lane)
        with m.If(self.start):
            m.d.sync += [
                self.beat.eq(0),
                self.row.eq(0),
                length.eq(layer.length),
                left.eq(layer.length),
            ]
        with m.Elif(self.step):
            m.d.sync += [
                self.beat.eq(self.beat + 1),
                left.eq(Mux(left > lanes, left - lanes, 0)),
            ]
            with m.If(self.row_ends):
                m.d.sync += [
                    self.beat.eq(0),
                    self.row.eq(self.row + ~self.again),
                    length.eq(following),
                    left.eq(following),
                ]
        return m
