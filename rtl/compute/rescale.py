"""Rescaler: sums of groups of inputs, each brought to the size of its output and added up."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.compute.accumulate import totals_layout
from rtl.compute.config import ArrayConfig

__all__ = ["GroupRescaler", "group_scales_layout", "partial_layout"]

_PRODUCT_BITS = 48


def group_scales_layout(config: ArrayConfig) -> data.StructLayout:
    """Scales of one group of inputs of one block of outputs, and how many positions it has."""
    return data.StructLayout(
        {
            "scales": data.ArrayLayout(signed(16), config.rows),
            "shift": 5,
            "positions": range(config.accumulators + 1),
        }
    )


def partial_layout(config: ArrayConfig) -> data.StructLayout:
    """Sums over one group of inputs at one position."""
    return data.StructLayout(
        {
            "sums": totals_layout(config),
            "at": range(config.accumulators),
            "first": 1,  # group of its position
            "last": 1,
        }
    )


class GroupRescaler(wiring.Component):
    """Add ``(sum · scale + 2^(shift-1)) >> shift`` over the groups of each position.

    ``scale_lanes`` outputs per cycle through one multiplier, adder and shifter each, bit for bit as
    the integer graph adds up groups. A position is held while it is worked on, so whoever gives one
    goes on at once if ``rows / scale_lanes`` cycles have passed since the one before.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    partials : In(stream.Signature(partial_layout(config)))
        The groups of a position in any order among other positions' groups. ``first`` starts its
        total anew, ``last`` ends it.
    scales : In(stream.Signature(group_scales_layout(config)))
        One for each group of each block; taken with the last of its ``positions``.
    totals : Out(stream.Signature(totals_layout(config)))
        Finished totals, ``rows / scale_lanes + 4`` cycles after their last group.
    idle : Out(1)
        No position is under way.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "partials": In(stream.Signature(partial_layout(config))),
                "scales": In(stream.Signature(group_scales_layout(config))),
                "totals": Out(stream.Signature(totals_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        lanes, rounds = config.scale_lanes, config.rows // config.scale_lanes
        round_bits = (rounds - 1).bit_length()
        m = Module()
        held = Signal(partial_layout(config))
        held_valid = Signal()
        number = Signal(range(max(2, rounds)))
        position = Signal(range(config.accumulators))
        advance = Signal()
        step = Signal()  # `lanes` outputs of the held position enter the pipeline
        held_ends = Signal()
        position_ends = position == self.scales.p.positions - 1
        m.d.comb += [
            step.eq(held_valid & self.scales.valid & advance),
            held_ends.eq(step & (number == rounds - 1)),
            self.partials.ready.eq(~held_valid | held_ends),
            self.scales.ready.eq(held_ends & position_ends),
        ]
        with m.If(step):
            m.d.sync += number.eq(Mux(held_ends, 0, number + 1))
        with m.If(held_ends):
            m.d.sync += [held_valid.eq(0), position.eq(Mux(position_ends, 0, position + 1))]
        with m.If(self.partials.valid & self.partials.ready):
            m.d.sync += [held.eq(self.partials.payload), held_valid.eq(1)]

        # Behind each register of the pipeline: operands, products, terms.
        place = data.StructLayout(
            {
                "valid": 1,
                "number": range(max(2, rounds)),
                "at": range(config.accumulators),
                "first": 1,
                "last": 1,
            }
        )
        loaded, multiplied, shifted = (
            Signal(place, name=name) for name in ("loaded", "multiplied", "shifted")
        )
        with m.If(advance):
            m.d.sync += [
                loaded.valid.eq(step),
                loaded.number.eq(number),
                loaded.at.eq(held.at),
                loaded.first.eq(held.first),
                loaded.last.eq(held.last),
                multiplied.eq(loaded),
                shifted.eq(multiplied),
            ]
        totals = data.ArrayLayout(signed(32), lanes)
        terms = Signal(totals)
        shifts = [Signal(5, name=f"shift_{i}") for i in range(2)]
        with m.If(advance):
            m.d.sync += [shifts[0].eq(self.scales.p.shift), shifts[1].eq(shifts[0])]
        half = (Const(1, _PRODUCT_BITS) << shifts[1])[1:_PRODUCT_BITS]
        for lane in range(lanes):
            operand = Signal(signed(32), name=f"operand_{lane}")
            scale = Signal(signed(16), name=f"scale_{lane}")
            product = Signal(signed(_PRODUCT_BITS), name=f"product_{lane}")
            rounded = Signal(signed(_PRODUCT_BITS), name=f"rounded_{lane}")
            m.d.comb += rounded.eq(product + half)
            with m.If(advance):
                with m.Switch(number):
                    for r in range(rounds):
                        with m.Case(r):
                            m.d.sync += [
                                operand.eq(held.sums[r * lanes + lane]),
                                scale.eq(self.scales.p.scales[r * lanes + lane]),
                            ]
                m.d.sync += [product.eq(operand * scale), terms[lane].eq(rounded >> shifts[1])]

        # Totals so far lie as the pipeline needs them, `lanes` outputs in a word. One that is
        # written now may be needed in the next cycle.
        m.submodules.memory = memory = Memory(
            shape=totals, depth=config.accumulators * rounds, init=[]
        )
        write = memory.write_port()
        read = memory.read_port(domain="sync", transparent_for=(write,))
        added = Signal(totals)
        m.d.comb += [
            read.en.eq(advance),
            read.addr.eq(Cat(multiplied.number[:round_bits], multiplied.at)),
            write.en.eq(advance & shifted.valid),
            write.addr.eq(Cat(shifted.number[:round_bits], shifted.at)),
            write.data.eq(added),
        ]
        for lane in range(lanes):
            m.d.comb += added[lane].eq(Mux(shifted.first, 0, read.data[lane]) + terms[lane])

        complete = Signal()
        finished = shifted.valid & shifted.last
        m.d.comb += [
            advance.eq(~(finished & complete & ~self.totals.ready)),
            self.totals.valid.eq(complete),
            self.idle.eq(
                ~(held_valid | loaded.valid | multiplied.valid | shifted.valid | complete)
            ),
        ]
        with m.If(self.totals.ready):
            m.d.sync += complete.eq(0)
        with m.If(finished & advance):
            with m.If(shifted.number == rounds - 1):
                m.d.sync += complete.eq(1)
            with m.Switch(shifted.number):
                for r in range(rounds):
                    with m.Case(r):
                        for lane in range(lanes):
                            m.d.sync += self.totals.payload[r * lanes + lane].eq(added[lane])
        return m
