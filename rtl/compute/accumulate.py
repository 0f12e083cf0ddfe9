"""Accumulators: sums of all positions of a layer, until the last tile of each sum has come."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.compute.array import sums_layout
from rtl.compute.config import ArrayConfig

__all__ = ["Accumulators", "tag_layout", "totals_layout"]


def tag_layout(config: ArrayConfig) -> data.StructLayout:
    """What accompanies a vector of sums: where it belongs."""
    return data.StructLayout(
        {
            "at": range(config.accumulators),
            "first": 1,  # of its sum: that of its position, or of a group of inputs there
            "last": 1,
            "partial": 1,  # the sum is one of a group of inputs that has scales of its own
            "first_partial": 1,  # group of its position
            "last_partial": 1,
            "group": 8,  # in its block; only its outputs count
            "log2_group": 3,  # outputs of a group; all of the block are group 0
            "block": 16,  # of outputs
        }
    )


def totals_layout(config: ArrayConfig) -> data.ArrayLayout:
    """One finished sum for each output."""
    return data.ArrayLayout(signed(32), config.rows)


class Accumulators(wiring.Component):
    """Add vectors of sums to their positions; hand a position on with its last vector.

    One vector per cycle, also to one position in successive cycles. A sum must fit 32 bits: the
    writer of an integer graph sees to it.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    enable : In(1)
        The pipeline advances.
    valid : In(1)
        ``sums`` is a vector.
    tag : In(tag_layout(config))
        ``first`` starts the position's sum anew, ``last`` ends it.
    sums : In(sums_layout(config))
    done : Out(1)
        ``totals`` are complete, two cycles after their last vector.
    at : Out(range(config.accumulators))
        Position of ``totals``.
    ended : Out(tag_layout(config))
        Tag of the last vector of ``totals``.
    totals : Out(totals_layout(config))
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "valid": In(1),
                "tag": In(tag_layout(config)),
                "sums": In(sums_layout(config)),
                "done": Out(1),
                "at": Out(range(config.accumulators)),
                "ended": Out(tag_layout(config)),
                "totals": Out(totals_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        vector = totals_layout(config)
        m.submodules.memory = memory = Memory(shape=vector, depth=config.accumulators, init=[])
        read = memory.read_port(domain="sync")
        write = memory.write_port()

        # Cycle 1: the memory is read. Cycle 2: added, and written at its end.
        valid = Signal()
        tag = Signal(tag_layout(config))
        sums = Signal.like(self.sums)
        written = Signal()  # the position read last is the one being written: take it from here
        added = Signal(vector)
        m.d.comb += [
            self.at.eq(self.ended.at),
            read.en.eq(self.enable),
            read.addr.eq(self.tag.at),
            write.addr.eq(tag.at),
            write.data.eq(added),
            write.en.eq(self.enable & valid & ~tag.last),
        ]
        for o in range(config.rows):
            old = Mux(written, self.totals[o], read.data[o])
            counts = (o >> tag.log2_group) == tag.group
            m.d.comb += added[o].eq(Mux(counts, Mux(tag.first, 0, old) + sums[o], old))
        with m.If(self.enable):
            m.d.sync += [
                valid.eq(self.valid),
                tag.eq(self.tag),
                sums.eq(self.sums),
                written.eq(valid & (tag.at == self.tag.at)),
                self.totals.eq(added),
                self.ended.eq(tag),
                self.done.eq(valid & tag.last),
            ]
        return m
