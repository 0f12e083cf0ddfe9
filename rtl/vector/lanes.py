"""Lanes: beats through them as often as an operation has rounds."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.vector.channels import channels_layout
from rtl.vector.config import VectorConfig
from rtl.vector.lane import SUM_BITS, Lane
from rtl.vector.layer import VECTOR_LAYER, VectorOp, values_layout
from rtl.vector.operands import choose_operands
from rtl.vector.rounds import PROGRAMS, Round, choose_round
from rtl.vector.scalar import ROW_NUMBERS
from rtl.vector.table import entries_layout, places_layout

__all__ = ["Lanes", "results_layout", "tag_layout"]


def tag_layout(config: VectorConfig) -> data.StructLayout:
    """What accompanies a beat."""
    return data.StructLayout(
        {
            "valid": 1,
            "beat": range(config.row_beats),
            "place": range(config.buffer_beats),
            "live": config.lanes,  # other lanes give zeros
            "row_ends": 1,
            "first_row": 1,
            "second": 1,  # pass
        }
    )


def _stage_layout(config: VectorConfig) -> data.StructLayout:
    """The same inside, with the number of the round; that of a beat that enters is 0."""
    return data.StructLayout({**tag_layout(config).members, "round": 2})


def results_layout(config: VectorConfig) -> data.ArrayLayout:
    """A beat of results."""
    return data.ArrayLayout(signed(32), config.lanes)


class Lanes(wiring.Component):
    """Map beats. Five registers on the way: memories, operands, products, sums, results.

    A result goes back to the first register until its beat has had all rounds. The pipeline stops
    as a whole while an output is not taken or the other operand is not there.

    Parameters
    ----------
    config : VectorConfig

    Members
    -------
    layer : In(VECTOR_LAYER)
    issued : In(tag_layout(config))
        The beat that is read from the row buffer in this cycle.
    numbers : In(ROW_NUMBERS)
        Of its row.
    x : In(values_layout(config))
        The beat that was read in the cycle before.
    other : In(stream.Signature(values_layout(config)))
        Second operands of ADD and PRODUCT.
    channel : Out(range(config.row_beats))
        Beat whose channels' numbers are wanted ...
    channels : In(channels_layout(config))
        ... and are there a cycle later.
    places : Out(places_layout(config))
        Entries of the table that are wanted ...
    entries : In(entries_layout(config))
        ... and are there a cycle later.
    advance : Out(1)
        The pipeline, and what reads for it, moves on.
    idle : Out(1)
        No beat is under way.
    ended : Out(tag_layout(config))
        Valid when a beat has had its last round, in the cycle in which it leaves.
    kept : Out(1)
        That beat, ``results``, is to be kept. It may be so for many cycles.
    results : Out(results_layout(config))
    outputs : Out(stream.Signature(values_layout(config)))
    """

    def __init__(self, config: VectorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(VECTOR_LAYER),
                "issued": In(tag_layout(config)),
                "numbers": In(ROW_NUMBERS),
                "x": In(values_layout(config)),
                "other": In(stream.Signature(values_layout(config))),
                "channel": Out(range(config.row_beats)),
                "channels": In(channels_layout(config)),
                "places": Out(places_layout(config)),
                "entries": In(entries_layout(config)),
                "advance": Out(1),
                "idle": Out(1),
                "ended": Out(tag_layout(config)),
                "kept": Out(1),
                "results": Out(results_layout(config)),
                "outputs": Out(stream.Signature(values_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self._config, self.layer
        names = ("read", "found", "operand", "product", "sum", "result")
        stages = [Signal(_stage_layout(config), name=f"{name}_tag") for name in names]
        read, found, *_, summed, result = stages
        ends = [Signal(name=f"ends_{name}") for name in names[2:]]  # the last round of its beat
        kind, last = choose_round(m, layer.op, found.second, found.round)

        # Into the first register: a beat from the row buffer, or one that returns.
        entering = Signal(_stage_layout(config))
        returns = result.valid & ~ends[-1]
        m.d.comb += [
            entering.eq(Mux(returns, result, read)),
            self.channel.eq(entering.beat),
            self.idle.eq(~Cat(stage.valid for stage in stages).any()),
        ]
        with m.If(returns):
            m.d.comb += entering.round.eq(result.round + 1)

        # Out of the last one.
        twice = [op for op, program in PROGRAMS.items() if program.second]
        two_passes = Cat(layer.op == op for op in twice).any()
        leaves = result.valid & ends[-1]
        keeps = two_passes & ~result.second
        with_other = (layer.op == VectorOp.ADD) | (layer.op == VectorOp.PRODUCT)
        wants = with_other & found.valid & (found.round == 0)
        given = ~wants | self.other.valid
        free = ~leaves | keeps | self.outputs.ready
        m.d.comb += [
            self.outputs.valid.eq(leaves & ~keeps & given),
            self.kept.eq(leaves & keeps),
            self.advance.eq(free & given),
            self.other.ready.eq(free & wants),
            self.ended.as_value().eq(result.as_value()),
            self.ended.valid.eq(leaves & self.advance),
        ]
        numbers = [Signal(ROW_NUMBERS, name=f"numbers_{name}") for name in names[:2]]
        offsets = [Signal(signed(SUM_BITS), name=f"offset_{name}") for name in names[2:4]]
        with m.If(self.advance):
            m.d.sync += [
                stages[0].as_value().eq(self.issued.as_value()),
                stages[1].eq(entering),
                *(after.eq(before) for before, after in pairwise(stages[1:])),
                ends[0].eq(last),
                *(after.eq(before) for before, after in pairwise(ends)),
                numbers[0].eq(self.numbers),
                numbers[1].eq(numbers[0]),
                offsets[0].eq(Mux(kind == Round.ROW, numbers[1].offset, 0)),
                offsets[1].eq(offsets[0]),
            ]

        operands = choose_operands(m, kind, layer, numbers[1], found.first_row)
        lanes = [Lane() for _ in range(config.lanes)]
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = lane
            m.d.comb += [
                lane.advance.eq(self.advance),
                lane.layer.eq(layer),
                lane.x.eq(self.x[i]),
                lane.operands.eq(operands),
                lane.later.eq(found.round != 0),
                lane.scale.eq(numbers[1].scale),
                lane.neighbour.eq(lanes[i ^ 1].held),
                lane.other.eq(self.other.payload[i]),
                lane.channel.eq(self.channels[i]),
                lane.entry.eq(self.entries[i]),
                lane.returns.eq(returns),
                lane.offset.eq(offsets[1]),
                lane.ends.eq(ends[2]),
                lane.final.eq(ends[2] & ~(two_passes & ~summed.second)),
                lane.live.eq(summed.live[i]),
                self.places[i].eq(lane.place),
                self.results[i].eq(lane.result),
                self.outputs.payload[i].eq(lane.result),
            ]
        return m
