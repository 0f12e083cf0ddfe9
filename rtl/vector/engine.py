"""Vector engine: the vector unit with memory on all sides."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from rtl.bus.channel import REGION, beat_layout
from rtl.bus.gearbox import Gearbox
from rtl.bus.pieces import PieceWalk
from rtl.config import StreamerConfig
from rtl.vector.config import VectorConfig
from rtl.vector.job import JOB, has_factors, has_other, row_words
from rtl.vector.unit import VectorUnit
from rtl.vector.words import Pack, Spread
from vq.container import GRANULE_BYTES

__all__ = ["OPERANDS", "VectorEngine"]

#: What is read for an operation, each by a channel of its own.
OPERANDS = ("numbers", "values", "other")
_RECORD_BITS = 8 * GRANULE_BYTES


class VectorEngine(wiring.Component):
    """Run operations on rows in memory, one after another.

    ::

        pieces -> regions -> memory -> beats -> numbers, values, other -> unit
        unit -> outputs, factors -> words -> beats -> memory

    An operation is over when its last word has been handed on; its record follows.

    Parameters
    ----------
    config : VectorConfig
        Its lanes are half the bytes of a beat of the bus.
    streamer : StreamerConfig
        Of the bus.

    Members
    -------
    job : In(stream.Signature(JOB))
        Taken when its record has been handed on.
    numbers_region, values_region, other_region : Out(stream.Signature(REGION))
    numbers, values, other : In(stream.Signature(beat_layout(streamer)))
        To and from the read DMA, in beats.
    record : In(stream.Signature(512))
        Of the operation, when it is over.
    region : Out(stream.Signature(REGION))
    beats : Out(stream.Signature(streamer.bus_bits))
        To the write DMA, in beats.
    busy : Out(1)
        An operation is under way, and not over.
    ends : Out(1)
        It is over in this cycle.
    starved : Out(1)
        Nothing goes on because what is read is not there.
    blocked : Out(1)
        An output waits for the memory.
    moves : Out(1)
        A beat came or went.
    error : Out(1)
        One that came was an error.
    finished : Out(1)
        The record has been handed on.
    """

    def __init__(self, config: VectorConfig, streamer: StreamerConfig) -> None:
        self._config, self._streamer = config, streamer
        beats = stream.Signature(beat_layout(streamer))
        super().__init__(
            {
                "job": In(stream.Signature(JOB)),
                **{f"{name}_region": Out(stream.Signature(REGION)) for name in OPERANDS},
                **{name: In(beats) for name in OPERANDS},
                "record": In(stream.Signature(_RECORD_BITS)),
                "region": Out(stream.Signature(REGION)),
                "beats": Out(stream.Signature(streamer.bus_bits)),
                **{
                    name: Out(1)
                    for name in ("busy", "ends", "starved", "blocked", "moves", "error", "finished")
                },
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self._config, self.job.payload
        layer = job.operation
        m.submodules.unit = unit = VectorUnit(config)
        m.submodules.spread = values = Spread(config)
        m.submodules.spread_other = other = Spread(config)
        m.submodules.pack = pack = Pack(config)
        m.submodules.cut = cut = Gearbox(_RECORD_BITS, self._streamer.bus_bits)
        walks = {name: PieceWalk(self._streamer.bus_bytes) for name in (*OPERANDS, "outputs")}
        wanted = {
            "numbers": layer.loads_table | layer.loads_channels,
            "values": Const(1),
            "other": has_other(layer.op),
            "outputs": Const(1),
        }
        row_beats = Signal(range(config.row_beats + 1))
        m.d.comb += row_beats.eq(((layer.channels - 1) >> config.log2_lanes) + 1)
        runs = Signal()  # the operation is under way
        left = {}  # pieces that are still to be walked over
        for name, walk in walks.items():
            m.submodules[f"walk_{name}"] = walk
            left[name] = Signal(name=f"{name}_left")
            m.d.comb += [
                walk.pieces.payload.eq(getattr(job, name)),
                walk.pieces.valid.eq(left[name]),
            ]
            with m.If(walk.pieces.valid & walk.pieces.ready):
                m.d.sync += left[name].eq(0)
        for name in OPERANDS:
            connect(m, walks[name].region, wiring.flipped(getattr(self, f"{name}_region")))

        # What comes in.
        m.d.comb += [
            unit.layer.payload.eq(layer),
            unit.layer.valid.eq(runs),
            unit.numbers.payload.eq(self.numbers.p.data),
            unit.numbers.valid.eq(self.numbers.valid),
            self.numbers.ready.eq(unit.numbers.ready),
            values.narrow.eq(job.values_narrow),
            other.narrow.eq(job.other_narrow),
        ]
        for source, spread, sink in (
            (self.values, values, unit.values),
            (self.other, other, unit.other),
        ):
            connect(m, spread.values, sink)
            m.d.comb += [
                spread.beats.eq(row_beats),
                spread.words.payload.eq(source.p.data),
                spread.words.valid.eq(source.valid),
                source.ready.eq(spread.words.ready),
            ]

        # What goes out: the words of a row, then its factor if it has one.
        word, of_factor = Signal(range(config.row_beats)), Signal()
        factor = unit.factors.payload
        row_ends = word == row_words(row_beats, layer.narrow) - 1
        words = Mux(of_factor, Cat(factor.factor, Const(0, 1), factor.shift), pack.words.payload)
        word_there = Mux(of_factor, unit.factors.valid, pack.words.valid)
        out = walks["outputs"].region
        word_gone = runs & self.beats.valid & self.beats.ready
        connect(m, unit.outputs, pack.values)
        m.d.comb += [pack.narrow.eq(layer.narrow), pack.beats.eq(row_beats)]
        with m.If(word_gone):
            m.d.sync += word.eq(Mux(row_ends & ~of_factor, 0, word + ~of_factor))
            m.d.sync += of_factor.eq(row_ends & ~of_factor & has_factors(layer.op))

        with m.FSM() as states:
            with m.State("IDLE"), m.If(self.job.valid):
                m.d.sync += [left[name].eq(wanted[name]) for name in walks]
                m.d.sync += runs.eq(1)
                m.next = "RUNS"
            with m.State("RUNS"):
                m.d.comb += [
                    self.region.payload.eq(out.payload),
                    self.region.valid.eq(out.valid),
                    out.ready.eq(self.region.ready),
                    self.beats.payload.eq(words),
                    self.beats.valid.eq(word_there),
                    pack.words.ready.eq(self.beats.ready & ~of_factor),
                    unit.factors.ready.eq(self.beats.ready & of_factor),
                ]
                with m.If(unit.layer.ready):
                    m.d.sync += runs.eq(0)
                with m.If(~left["outputs"] & ~runs):
                    m.d.comb += self.ends.eq(1)
                    m.next = "RECORD"
            with m.State("RECORD"):
                m.d.comb += [
                    self.region.p.granules.eq(GRANULE_BYTES // self._streamer.bus_bytes),
                    self.region.p.address.eq(
                        job.record << (GRANULE_BYTES // self._streamer.bus_bytes).bit_length() - 1
                    ),
                    self.region.valid.eq(1),
                    cut.put.payload.eq(self.record.payload),
                    cut.put.valid.eq(self.record.valid),
                    self.record.ready.eq(cut.put.ready),
                    self.beats.payload.eq(cut.get.payload),
                    self.beats.valid.eq(cut.get.valid),
                    cut.get.ready.eq(self.beats.ready),
                ]
                with m.If(self.region.ready):
                    m.d.comb += [self.finished.eq(1), self.job.ready.eq(1)]
                    m.next = "IDLE"

        sources = [getattr(self, name) for name in OPERANDS]
        there = [one.valid & one.ready for one in sources]
        m.d.comb += [
            self.busy.eq(self.job.valid & ~states.ongoing("RECORD")),
            self.starved.eq(
                (unit.numbers.ready & ~self.numbers.valid)
                | (unit.values.ready & ~values.words.valid & unit.idle)
                | (unit.other.ready & ~other.words.valid)
            ),
            self.blocked.eq(self.beats.valid & ~self.beats.ready),
            self.moves.eq(Cat(there).any() | (self.beats.valid & self.beats.ready)),
            self.error.eq(
                Cat(taken & one.p.error for taken, one in zip(there, sources, strict=True)).any()
            ),
        ]
        return m
