"""Check of a layer's shapes: what contradicts itself is refused before it can hang the machine."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.accelerator_config import AcceleratorConfig
from rtl.control.multiply import SerialMultiplier
from rtl.descriptor import Method
from rtl.program import PROGRAM_LAYER, PROGRAM_VERSION, RunStatus
from rtl.transfer.parameters import GROUPS_PER_SLOT, PARAMETER_BYTES
from vq.container import CHUNK_SUBVECTORS, GRANULE_BYTES

__all__ = ["ShapeChecker"]


class _Products:
    """What the checks multiply."""

    def __init__(self) -> None:
        self.inputs = Signal(32)  # of an output
        self.positions = Signal(32)
        self.weights = Signal(72)  # in the stream, the filling of sub-vectors included
        self.tiles = Signal(40)  # of a block, if its last group were complete
        self.slots = Signal(32)


class ShapeChecker(wiring.Component):
    """Compare counts of window, tile, stream and outputs, and sizes with the buffers.

    Every part of the machine counts for itself. If their counts did not agree, one would wait
    for ever for what another never sends.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    layer : In(PROGRAM_LAYER)
        Constant from ``start`` to ``done``.
    start : In(1)
    done : Out(1)
    status : Out(RunStatus)
        VERSION, SHAPE, BUFFER, ADDRESS or OK, when ``done``.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(PROGRAM_LAYER),
                "start": In(1),
                "done": Out(1),
                "status": Out(RunStatus),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiplier = multiplier = SerialMultiplier(32, 40)
        layer = self.layer
        walk, tile = layer.walk, layer.tile
        slots_of_block = ((layer.groups + GROUPS_PER_SLOT - 1) >> 2) + 1
        found = _Products()
        m.d.comb += self.status.eq(self._status(m, found))

        def multiply(state: str, a: Value, b: Value, result: Signal, following: str) -> None:
            """Two states: start, and wait for the result."""
            with m.State(state):
                m.d.comb += [
                    multiplier.start.eq(1),
                    multiplier.a.eq(a),
                    multiplier.b.eq(b),
                ]
                m.next = f"{state}_ENDS"
            with m.State(f"{state}_ENDS"), m.If(multiplier.done):
                m.d.sync += result.eq(multiplier.product)
                m.next = following

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.start):
                    m.d.comb += self.done.eq(0)
                    m.next = "WINDOW"
            multiply("WINDOW", walk.kernel_y, walk.kernel_x, found.inputs, "INPUTS")
            multiply("INPUTS", walk.group_inputs, found.inputs, found.inputs, "POSITIONS")
            multiply("POSITIONS", walk.out_height, walk.out_width, found.positions, "WEIGHTS")
            multiply("WEIGHTS", tile.columns, tile.outputs << tile.log2_d, found.weights, "GROUPS")
            multiply("GROUPS", layer.groups, walk.scale_tiles, found.tiles, "SLOTS")
            multiply("SLOTS", slots_of_block, walk.blocks, found.slots, "IDLE")
        return m

    def _status(self, m: Module, found: "_Products") -> Value:
        config, layer = self._config, self.layer
        array = config.array
        top = 1 << (config.address_bits - (GRANULE_BYTES - 1).bit_length())

        def outside(region: data.View) -> Value:
            return region.address + region.granules > top

        def beyond(word: Value, granules: Value, word_bytes: int, words: int) -> Value:
            shift = (GRANULE_BYTES // word_bytes).bit_length() - 1
            return word + (granules << shift) > words

        load, store, output = layer.load, layer.store, layer.output
        ascending = [
            (layer.version != PROGRAM_VERSION, RunStatus.VERSION),
            (self._bad_shape(m, found), RunStatus.SHAPE),
            (
                (output.positions > config.accumulators)
                | (
                    load.input.enable
                    & beyond(
                        load.input.word,
                        load.input.region.granules,
                        config.columns,
                        array.input_words,
                    )
                )
                | (
                    load.residual.enable
                    & beyond(
                        load.residual.word,
                        load.residual.region.granules,
                        config.rows,
                        array.output_words,
                    )
                )
                | beyond(store.word, store.region.granules, config.rows, array.output_words),
                RunStatus.BUFFER,
            ),
            (
                (load.input.enable & outside(load.input.region))
                | (load.residual.enable & outside(load.residual.region))
                | (layer.parameters + layer.parameter_granules > top)
                | outside(store.region)
                | (store.record >= top),
                RunStatus.ADDRESS,
            ),
        ]
        status = Value.cast(RunStatus.OK)
        for condition, code in reversed(ascending):
            status = Mux(condition, code, status)
        return status

    def _bad_shape(self, m: Module, found: "_Products") -> Value:
        config, layer = self._config, self.layer
        walk, tile, output = layer.walk, layer.tile, layer.output
        zero: Value = output.positions == 0
        for count in (
            walk.blocks, walk.block_groups, walk.group_blocks, walk.group_inputs, walk.channels,
            walk.out_height, walk.out_width, walk.in_height, walk.in_width, walk.kernel_y,
            walk.kernel_x, output.pixel_words, output.last_rows, layer.store.region.granules,
            layer.parameter_granules,
        ):  # fmt: skip
            zero = zero | (count == 0)
        for part in (layer.load.input, layer.load.residual):
            zero = zero | (part.enable & (part.region.granules == 0))

        log2_rows, log2_columns = config.rows.bit_length() - 1, config.columns.bit_length() - 1
        blocks = (tile.outputs + config.rows - 1) >> log2_rows
        tiles_of_window = (found.inputs + config.columns - 1) >> log2_columns
        tiles_of_row = ((tile.columns << tile.log2_d) + config.columns - 1) >> log2_columns
        tiles_of_identity = max(1, config.rows // config.columns)

        stream = layer.weights
        bits_512 = (found.weights + CHUNK_SUBVECTORS - 1) >> (CHUNK_SUBVECTORS - 1).bit_length()
        bad_stream = Signal()
        with m.Switch(stream.method):
            with m.Case(Method.INT8):
                granules = (found.weights + GRANULE_BYTES - 1) >> (GRANULE_BYTES - 1).bit_length()
                m.d.comb += bad_stream.eq(stream.stream_granules != granules)
            with m.Case(Method.CODES):
                m.d.comb += bad_stream.eq(stream.chunks != bits_512)
            with m.Default():
                before = (stream.chunks - 1)[:32] << stream.log2_d[:3]
                m.d.comb += bad_stream.eq(before + stream.last_granules != bits_512)
        return (
            zero
            | Mux(walk.pool, output.positions != 1, output.positions != found.positions)
            | (output.blocks != walk.blocks)
            | (output.pixel_words < output.blocks)
            | (output.last_rows > config.rows)
            | (layer.weighted == tile.identity)
            | ((layer.groups == 0) != (walk.scale_tiles == 0))
            | (walk.pool & (layer.groups != 0))
            | (
                (layer.groups != 0)
                & (
                    (found.tiles < tiles_of_window)
                    | (found.tiles >= tiles_of_window + walk.scale_tiles)
                )
            )
            | (
                layer.parameter_granules
                != found.slots * (config.rows * PARAMETER_BYTES // GRANULE_BYTES)
            )
            | Mux(
                layer.weighted,
                (blocks != walk.blocks)
                | (tiles_of_row != tiles_of_window)
                | (tile.log2_d > config.array.d_max.bit_length() - 1)
                | bad_stream,
                (tile.tiles != walk.blocks * tiles_of_identity)
                | (tiles_of_window != tiles_of_identity),
            )
        )
