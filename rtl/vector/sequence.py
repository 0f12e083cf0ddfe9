"""Sequencer: which beat goes to the lanes, and when."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.config import VectorConfig
from rtl.vector.lanes import tag_layout
from rtl.vector.layer import VECTOR_LAYER, VectorOp
from rtl.vector.rounds import PROGRAMS, ROUNDS_MAX
from rtl.vector.scalar import ROW_NUMBERS
from rtl.vector.walk import RowWalk

__all__ = ["Sequencer"]


class Sequencer(wiring.Component):
    """Take layers one after another; issue the beats of their rows.

    A beat is issued every so many cycles as it has rounds. Between two layers the lanes run dry.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(stream.Signature(VECTOR_LAYER))
        Taken when all its outputs and factors have been handed over.
    start : Out(1)
        A layer begins.
    whole : Out(1)
        Its rows are reduced, and mapped when they are complete.
    loads_table, loads_channels : Out(1)
        Numbers that come next.
    loaded : In(1)
        They have come.
    rows : In(stream.Signature(ROW_NUMBERS))
        Numbers of each row, if ``whole``.
    second : In(stream.Signature(ROW_NUMBERS))
        Those of a second pass.
    tally : Out(stream.Signature(17))
        How many rows there were: a mean's request for them.
    tallied : In(1)
        The tally of a row is taken.
    there : In(1)
        A beat is in the row buffer.
    advance : In(1)
        The lanes move on.
    idle : In(1)
        They are empty.
    settled : In(1)
        All factors have been handed over.
    issued : Out(tag_layout(config))
        A beat to read.
    numbers : Out(ROW_NUMBERS)
    issues : Out(1)
    frees : Out(range(config.row_beats + 1))
        To the row buffer.
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(VECTOR_LAYER)),
                "start": Out(1),
                "whole": Out(1),
                "loads_table": Out(1),
                "loads_channels": Out(1),
                "loaded": In(1),
                "rows": In(stream.Signature(ROW_NUMBERS)),
                "second": In(stream.Signature(ROW_NUMBERS)),
                "tally": Out(stream.Signature(17)),
                "tallied": In(1),
                "there": In(1),
                "advance": In(1),
                "idle": In(1),
                "settled": In(1),
                "issued": Out(tag_layout(config)),
                "numbers": Out(ROW_NUMBERS),
                "issues": Out(1),
                "frees": Out(range(config.row_beats + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer.payload
        m.submodules.walk = walk = RowWalk(config)
        second = Signal()
        rounds, twice, drains = self._program(m, second)
        halves = (layer.op == VectorOp.ROTARY) & layer.halves
        phase = Signal(range(ROUNDS_MAX))
        held = Signal()  # `numbers` are those of the row
        owing = Signal()  # a tally has been begun that is not taken
        base = Signal(range(config.buffer_beats))  # where the row begins
        beats = Signal(range(config.row_beats + 1))
        same = Signal(16)  # rows since numbers of channels came
        last_row = walk.row == layer.rows - 1
        shares = (layer.op == VectorOp.SHARES) | (layer.op == VectorOp.SHARES_WIDE)
        final = ~twice | (second ^ (layer.op == VectorOp.MEAN))  # pass that frees its beats
        goes, row_over = Signal(), Signal()
        running = Signal()
        ready = Mux(self.whole | second, held, self.there)
        waits = (drains & (walk.beat == 0) & ~self.idle) | (shares & walk.row_ends & owing)
        m.d.comb += [
            beats.eq(((layer.channels - 1) >> config.log2_lanes) + 1),
            goes.eq(running & self.advance & (phase == 0) & ready & ~waits),
            row_over.eq(goes & walk.row_ends),
            walk.layer.eq(layer),
            walk.start.eq(self.start),
            walk.step.eq(goes),
            walk.again.eq(twice & ~second & ((layer.op == VectorOp.SHARES_WIDE) | last_row)),
            self.issued.valid.eq(goes),
            self.issued.beat.eq(walk.beat),
            self.issued.live.eq(walk.live),
            self.issued.row_ends.eq(walk.row_ends),
            self.issued.first_row.eq(walk.row == 0),
            self.issued.second.eq(second),
            self.issued.place.eq(base + walk.beat),
            self.issues.eq(goes & final),
            self.rows.ready.eq(
                self.whole & Mux(twice, running & ~second & ~held, ~held | row_over)
            ),
            self.tally.payload.eq(layer.rows),
        ]
        with m.If(goes & final):
            m.d.comb += self.frees.eq(Mux(halves, Mux(walk.row_ends, beats, 0), 1))
        # The partner is read in the cycle behind its beat, which has gone on meanwhile.
        partner = Signal(range(config.buffer_beats))
        with m.If(halves & (phase != 0)):
            m.d.comb += self.issued.place.eq(partner)
        with m.If(goes):
            half = beats >> 1
            m.d.sync += partner.eq(base + Mux(walk.beat < half, walk.beat + half, walk.beat - half))
        with m.If(self.advance):
            m.d.sync += phase.eq(Mux(phase == rounds - 1, 0, phase + 1))
        with m.If(row_over):
            m.d.sync += [held.eq(0), owing.eq(shares & ~second)]
            with m.If(final):
                m.d.sync += base.eq(base + beats)
        with m.If(self.tallied):
            m.d.sync += owing.eq(0)
        with m.If(self.rows.valid & self.rows.ready):
            m.d.sync += [held.eq(1), self.numbers.eq(self.rows.payload)]

        with m.FSM():
            with m.State("IDLE"), m.If(self.layer.valid):
                m.d.comb += self.start.eq(1)
                m.d.sync += [second.eq(0), same.eq(0), held.eq(0)]
                m.next = "LOADS_TABLE"
            with m.State("LOADS_TABLE"):
                m.d.comb += self.loads_table.eq(layer.loads_table)
                with m.If(self.loaded | ~layer.loads_table):
                    m.next = "LOADS_CHANNELS"
            with m.State("LOADS_CHANNELS"):
                # Numbers in use stay until the lanes are empty.
                m.d.comb += self.loads_channels.eq(layer.loads_channels & self.idle)
                with m.If(self.idle):  # until then, a partner may have to be read
                    m.d.sync += phase.eq(0)
                with m.If(self.loaded | ~layer.loads_channels):
                    m.next = "RUNS"
            with m.State("RUNS"):
                m.d.comb += running.eq(1)
                with m.If(row_over):
                    m.d.sync += same.eq(same + 1)
                    with m.If(walk.again):
                        m.next = "TALLIES"
                    with m.Elif(last_row):
                        m.next = "ENDS"
                    with m.Elif(second):
                        m.d.sync += second.eq(0)
                        m.next = "TURNS"
                    with m.Elif(same == layer.same_channels - 1):
                        m.d.sync += same.eq(0)
                        m.next = "LOADS_CHANNELS"
            with m.State("TALLIES"):  # the second pass waits for the sum over the first one
                m.d.comb += [
                    self.tally.valid.eq((layer.op == VectorOp.MEAN) & self.idle & ~held),
                    self.second.ready.eq(1),
                ]
                m.d.sync += phase.eq(0)
                with m.If(self.second.valid):
                    m.d.sync += [held.eq(1), second.eq(1), self.numbers.eq(self.second.payload)]
                    m.next = "RUNS"
            with m.State("TURNS"), m.If(self.idle):  # to the first pass of the next row
                m.d.sync += phase.eq(0)
                m.next = "RUNS"
            with m.State("ENDS"), m.If(self.idle & self.settled & ~owing):
                m.d.comb += self.layer.ready.eq(1)
                m.next = "IDLE"
        return m

    def _program(self, m: Module, second: Value) -> tuple[Signal, Signal, Signal]:
        """Rounds of the pass; whether there are two passes; whether rows wait for each other."""
        layer = self.layer.payload
        rounds, twice, drains = Signal(range(ROUNDS_MAX + 1)), Signal(), Signal()
        with m.Switch(layer.op):
            for op, program in PROGRAMS.items():
                with m.Case(op):
                    m.d.comb += [
                        rounds.eq(Mux(second, len(program.second), len(program.first))),
                        twice.eq(bool(program.second)),
                        drains.eq(program.drains),
                        self.whole.eq(
                            layer.halves if op == VectorOp.ROTARY else Const(program.whole)
                        ),
                    ]
        return rounds, twice, drains
