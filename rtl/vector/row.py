"""Row buffer: rows that come, while those before them are mapped."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.layer import VECTOR_LAYER, VectorOp, values_layout
from rtl.vector.reduce import reducible_layout
from rtl.vector.walk import RowWalk

__all__ = ["RowBuffer", "kept_layout"]


def kept_layout(config: VectorConfig) -> data.StructLayout:
    """A beat that takes the place of the one it was made of."""
    return data.StructLayout(
        {"enable": 1, "place": range(config.buffer_beats), "values": values_layout(config)}
    )


class RowBuffer(wiring.Component):
    """A ring of beats.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(VECTOR_LAYER)
    start : In(1)
        A layer begins; all beats of the one before are freed.
    whole : In(1)
        Its rows are reduced.
    values : In(stream.Signature(values_layout(config)))
    reducible : Out(reducible_layout(config))
        Beats, as they come.
    outstanding : In(1)
        No row may be completed.
    kept : In(kept_layout(config))
    issues : In(1)
        A beat goes to the lanes for the last time,
    frees : In(range(config.row_beats + 1))
        and as many are not needed any more, once the lanes have moved on.
    enable : In(1)
        The lanes move on.
    place : In(range(config.buffer_beats))
    found : Out(values_layout(config))
        Beat of the place of the cycle before.
    there : Out(1)
        There is a beat that has not been issued.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(VECTOR_LAYER),
                "start": In(1),
                "whole": In(1),
                "values": In(stream.Signature(values_layout(config))),
                "reducible": Out(reducible_layout(config)),
                "outstanding": In(1),
                "kept": In(kept_layout(config)),
                "issues": In(1),
                "frees": In(range(config.row_beats + 1)),
                "enable": In(1),
                "place": In(range(config.buffer_beats)),
                "found": Out(values_layout(config)),
                "there": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer
        depth = config.buffer_beats
        m.submodules.memory = memory = Memory(shape=values_layout(config), depth=depth, init=[])
        m.submodules.walk = walk = RowWalk(config)
        write, read = memory.write_port(), memory.read_port()
        used, ahead = Signal(range(depth + 1)), Signal(range(depth + 1))
        freed = Signal(range(config.row_beats + 1))
        end = Signal(range(depth))
        running = Signal()
        taken = self.values.valid & self.values.ready
        last = walk.row_ends & (walk.row == layer.rows - 1)
        m.d.comb += [
            walk.layer.eq(layer),
            walk.start.eq(self.start),
            walk.step.eq(taken),
            self.values.ready.eq(
                running
                & (used != depth)
                & ~self.kept.enable
                & ~(self.whole & walk.row_ends & self.outstanding)
            ),
            write.en.eq(self.kept.enable | taken),
            write.addr.eq(Mux(self.kept.enable, self.kept.place, end)),
            write.data.eq(Mux(self.kept.enable, self.kept.values, self.values.payload)),
            read.en.eq(self.enable),
            read.addr.eq(self.place),
            self.found.eq(read.data),
            self.there.eq(ahead != 0),
            self.reducible.valid.eq(taken & self.whole),
            self.reducible.values.eq(self.values.payload),
            self.reducible.live.eq(walk.live),
            self.reducible.first.eq(walk.beat == 0),
            self.reducible.last.eq(walk.row_ends),
            self.reducible.magnitudes.eq(layer.op == VectorOp.ROWS),
        ]
        m.d.sync += [
            used.eq(used + taken - Mux(self.enable, freed, 0)),
            ahead.eq(ahead + taken - self.issues),
            end.eq(end + taken),
        ]
        with m.If(self.enable):
            m.d.sync += freed.eq(self.frees)
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.Elif(taken & last):
            m.d.sync += running.eq(0)
        return m
