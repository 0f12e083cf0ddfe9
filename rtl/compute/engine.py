"""Engine: layers of weights and activations in, int8 words of finished outputs out."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.compute.accumulate import Accumulators, tag_layout, totals_layout
from rtl.compute.array import MacArray
from rtl.compute.config import ArrayConfig
from rtl.compute.requantize import Requantizer, block_scaling
from rtl.compute.rescale import GroupRescaler, group_scales_layout
from rtl.compute.tile import TILE_LAYER, WeightTile
from rtl.compute.vectors import VectorReader, input_write_layout
from rtl.compute.walk import WALK_LAYER, Walk

__all__ = ["Engine", "beat_layout", "scaling_layout"]


def beat_layout(config: ArrayConfig) -> data.StructLayout:
    """Weights as the decoder gives them."""
    return data.StructLayout({"weights": data.ArrayLayout(signed(8), config.lanes)})


def scaling_layout(config: ArrayConfig) -> data.StructLayout:
    """How one block of outputs is requantised, and how many positions it has."""
    return data.StructLayout(
        {
            "outputs": block_scaling(config),
            "relu": 1,
            "positions": range(config.accumulators + 1),
        }
    )


class Engine(wiring.Component):
    """Multiply tiles of weights with vectors of activations, add up, requantise.

    ::

        weights -> tile ------v
        walk -> vectors -> array -> accumulators -----------> totals -> requantiser -> words
                                         |-> group rescaler ---^            |
                                  scales ------^                  scaling --^

    Weights and vectors wait for each other at the array: a vector that needs a new tile enters
    when the tile is complete, in the same cycle in which it becomes the current one. From there to
    the accumulators the pipeline stops as a whole. A finished sum leaves it at once unless the one
    before is still in the way: sums of groups of inputs pass every ``rows / scale_lanes`` cycles,
    totals of positions likewise.

    Parameters
    ----------
    config : ArrayConfig

    Members
    -------
    tiles : In(stream.Signature(TILE_LAYER))
    windows : In(stream.Signature(WALK_LAYER))
        Each layer is given to both, in the same order; they need not be at the same layer.
    weights : In(stream.Signature(beat_layout(config)))
    write : In(input_write_layout(config))
        To the activation buffer.
    scaling : In(stream.Signature(scaling_layout(config)))
        One for each block of each layer; taken with the block's last position.
    scales : In(stream.Signature(group_scales_layout(config)))
        For layers with ``scale_tiles``: one for each group of each block, groups of a block one
        after another. Taken with the last position of its group.
    words : Out(stream.Signature(ArrayLayout(signed(8), rows)))
        Finished outputs: block by block, in each position by position.
    released : Out(1)
        The activations of a layer have been read and may be overwritten.
    layer_ends : Out(1)
        The last vector of a layer enters the array in this cycle.
    busy : Out(1)
        A vector enters the array in this cycle.
    awaits_weights, awaits_vectors, blocked : Out(1)
        Why none does; at most one of the four.
    """

    def __init__(self, config: ArrayConfig) -> None:
        self._config = config
        super().__init__(
            {
                "tiles": In(stream.Signature(TILE_LAYER)),
                "windows": In(stream.Signature(WALK_LAYER)),
                "weights": In(stream.Signature(beat_layout(config))),
                "write": In(input_write_layout(config)),
                "scaling": In(stream.Signature(scaling_layout(config))),
                "scales": In(stream.Signature(group_scales_layout(config))),
                "words": Out(stream.Signature(data.ArrayLayout(signed(8), config.rows))),
                "released": Out(1),
                "layer_ends": Out(1),
                "busy": Out(1),
                "awaits_weights": Out(1),
                "awaits_vectors": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.tile = tile = WeightTile(config)
        m.submodules.walk = walk = Walk(config)
        m.submodules.reader = reader = VectorReader(config)
        m.submodules.array = array = MacArray(config)
        m.submodules.accumulators = sums = Accumulators(config)
        connect(m, flipped(self.tiles), tile.layer)
        connect(m, flipped(self.weights), tile.beats)
        connect(m, flipped(self.windows), walk.layer)
        connect(m, walk.pieces, reader.pieces)
        m.d.comb += reader.write.eq(self.write)

        advance = self._finish(m, sums)
        vector = reader.vectors
        wants_tile = vector.p.new_tile & ~tile.full
        m.d.comb += [
            vector.ready.eq(advance & ~wants_tile),
            tile.take.eq(vector.valid & vector.ready & vector.p.new_tile),
            array.enable.eq(advance),
            array.weights.eq(tile.weights),
            sums.enable.eq(advance),
            sums.sums.eq(array.sums),
            self.released.eq(reader.released),
            self.layer_ends.eq(self.busy & vector.p.layer_ends),
            self.busy.eq(vector.valid & vector.ready),
            self.blocked.eq(~advance),
            self.awaits_vectors.eq(advance & ~vector.valid),
            self.awaits_weights.eq(advance & vector.valid & wants_tile),
        ]
        # Beside the array's two stages, and the register in which a vector meets its tile.
        there = [Signal(name=f"there_{i}") for i in range(3)]
        tags = [Signal(tag_layout(config), name=f"tag_{i}") for i in range(3)]
        with m.If(advance):
            m.d.sync += [
                there[0].eq(self.busy),
                tags[0].eq(vector.p.tag),
                array.activations.eq(vector.p.activations),
            ]
            for i in (1, 2):
                m.d.sync += [there[i].eq(there[i - 1]), tags[i].eq(tags[i - 1])]
        m.d.comb += [sums.valid.eq(there[2]), sums.tag.eq(tags[2])]
        return m

    def _finish(self, m: Module, sums: Accumulators) -> Signal:
        """From finished sums to words; the result is whether what comes behind them may advance."""
        config = self._config
        m.submodules.rescaler = rescaler = GroupRescaler(config)
        m.submodules.requantizer = scaler = Requantizer(config)
        connect(m, flipped(self.scales), rescaler.scales)
        connect(m, scaler.words, flipped(self.words))

        # A sum goes to the rescaler or is a total. Totals of groups go first: what is done now
        # came behind them.
        totals = Signal(totals_layout(config))
        totals_valid = Signal()
        taken = scaler.positions.valid & scaler.positions.ready
        free = ~totals_valid | taken
        partial = sums.ended.partial
        direct = Signal()
        advance = Signal()
        with m.If(free):
            m.d.sync += [
                totals.eq(Mux(rescaler.totals.valid, rescaler.totals.payload, sums.totals)),
                totals_valid.eq(rescaler.totals.valid | direct),
            ]
        position = Signal(range(config.accumulators))
        block_ends = position == self.scaling.p.positions - 1
        m.d.comb += [
            direct.eq(sums.done & ~partial & rescaler.idle),
            advance.eq(~sums.done | Mux(partial, rescaler.partials.ready, direct & free)),
            rescaler.totals.ready.eq(free),
            rescaler.partials.valid.eq(sums.done & partial),
            rescaler.partials.p.sums.eq(sums.totals),
            rescaler.partials.p.at.eq(sums.ended.at),
            rescaler.partials.p.first.eq(sums.ended.first_partial),
            rescaler.partials.p.last.eq(sums.ended.last_partial),
            scaler.positions.valid.eq(totals_valid & self.scaling.valid),
            scaler.positions.p.totals.eq(totals),
            scaler.positions.p.scaling.eq(self.scaling.p.outputs),
            scaler.positions.p.relu.eq(self.scaling.p.relu),
            self.scaling.ready.eq(taken & block_ends),
        ]
        with m.If(taken):
            m.d.sync += position.eq(position + 1)
            with m.If(block_ends):
                m.d.sync += position.eq(0)
        return advance
