"""Parameter reader: what the requantiser and the group scales need, in the order of use."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import beat_layout
from rtl.bus.gearbox import Gearbox
from rtl.compute.config import ArrayConfig
from rtl.compute.engine import scaling_layout
from rtl.compute.rescale import group_scales_layout
from rtl.config import StreamerConfig

__all__ = ["GROUPS_PER_SLOT", "PARAMETER_BYTES", "PARAMETER_LAYER", "ParameterReader"]

#: Bytes of one output in a slot: bias (4), multiplier (2), shift (1), one unused; or the scales of
#: four groups (2 each).
PARAMETER_BYTES = 8
GROUPS_PER_SLOT = 4

#: What the reader has to know of a layer. A block of outputs has one slot with the numbers of the
#: requantisation, then ``ceil(groups / 4)`` with scales of groups. In this order: the totals of the
#: first positions are requantised while the last group's scale is still in use for other ones.
PARAMETER_LAYER = data.StructLayout(
    {"blocks": 16, "groups": 16, "positions": 17, "relu": 1, "group_shift": 5}
)


class ParameterReader(wiring.Component):
    """Cut a stream of slots, ``rows`` times 8 bytes, into numbers of groups and of blocks.

    Parameters
    ----------
    config : StreamerConfig
    array : ArrayConfig

    Members
    -------
    layer : In(stream.Signature(PARAMETER_LAYER))
        Taken with the last number of its last block.
    beats : In(stream.Signature(beat_layout(config)))
        Slots, one after another; a slot is whole granules.
    scaling : Out(stream.Signature(scaling_layout(array)))
        One for each block.
    scales : Out(stream.Signature(group_scales_layout(array)))
        One for each group of each block, behind the block's ``scaling``.
    error : Out(1)
        A beat was an error.
    """

    def __init__(self, config: StreamerConfig, array: ArrayConfig) -> None:
        self._config, self._array = config, array
        super().__init__(
            {
                "layer": In(stream.Signature(PARAMETER_LAYER)),
                "beats": In(stream.Signature(beat_layout(config))),
                "scaling": Out(stream.Signature(scaling_layout(array))),
                "scales": Out(stream.Signature(group_scales_layout(array))),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._array.rows
        m.submodules.gearbox = gearbox = Gearbox(self._config.bus_bits, 8 * PARAMETER_BYTES * rows)
        layer, slot = self.layer.payload, gearbox.get
        block, group = Signal(16), Signal(16)
        of_group = Signal()
        part = group[: (GROUPS_PER_SLOT - 1).bit_length()]
        last_group = group == layer.groups - 1
        block_ends = Signal()
        taken = Signal()
        there = self.layer.valid & slot.valid
        m.d.comb += [
            gearbox.put.payload.eq(self.beats.p.data),
            gearbox.put.valid.eq(self.beats.valid),
            self.beats.ready.eq(gearbox.put.ready),
            self.error.eq(self.beats.valid & self.beats.ready & self.beats.p.error),
            self.scales.valid.eq(there & of_group),
            self.scales.p.shift.eq(layer.group_shift),
            self.scales.p.positions.eq(layer.positions),
            self.scaling.valid.eq(there & ~of_group),
            self.scaling.p.relu.eq(layer.relu),
            self.scaling.p.positions.eq(layer.positions),
            taken.eq(Mux(of_group, self.scales.ready, self.scaling.ready) & there),
            slot.ready.eq(taken & (~of_group | last_group | part.all())),
            block_ends.eq(taken & Mux(of_group, last_group, layer.groups == 0)),
            self.layer.ready.eq(block_ends & (block == layer.blocks - 1)),
        ]
        for o in range(rows):
            entry = slot.payload.word_select(o, 8 * PARAMETER_BYTES)
            scaling = self.scaling.p.outputs[o]
            m.d.comb += [
                scaling.bias.eq(entry[:32].as_signed()),
                scaling.multiplier.eq(entry[32:48].as_signed()),
                scaling.shift.eq(entry[48:54]),
                self.scales.p.scales[o].eq(entry.word_select(part, 16).as_signed()),
            ]
        with m.If(taken):
            m.d.sync += [
                of_group.eq(~block_ends),
                group.eq(Mux(of_group & ~last_group, group + 1, 0)),
            ]
            with m.If(block_ends):
                m.d.sync += block.eq(Mux(self.layer.ready, 0, block + 1))
        return m
