"""Check of a layer's shapes: what contradicts itself is refused before it can hang the machine."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.accelerator_config import AcceleratorConfig
from rtl.control.multiply import SerialMultiplier
from rtl.descriptor import Method
from rtl.program import PROGRAM_LAYER, PROGRAM_VERSION, RunStatus
from vq.container import CHUNK_SUBVECTORS, GRANULE_BYTES

__all__ = ["ShapeChecker"]


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
        inputs, positions, weights = Signal(32), Signal(32), Signal(72)
        m.d.comb += self.status.eq(self._status(m, inputs, positions, weights))

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
            multiply("WINDOW", walk.kernel_y, walk.kernel_x, inputs, "INPUTS")
            multiply("INPUTS", walk.group_inputs, inputs, inputs, "POSITIONS")
            multiply("POSITIONS", walk.out_height, walk.out_width, positions, "WEIGHTS")
            multiply("WEIGHTS", tile.columns, tile.outputs << tile.log2_d, weights, "IDLE")
        return m

    def _status(self, m: Module, inputs: Value, positions: Value, weights: Value) -> Value:
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
            (self._bad_shape(m, inputs, positions, weights), RunStatus.SHAPE),
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

    def _bad_shape(self, m: Module, inputs: Value, positions: Value, weights: Value) -> Value:
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
        tiles_of_window = (inputs + config.columns - 1) >> log2_columns
        tiles_of_row = ((tile.columns << tile.log2_d) + config.columns - 1) >> log2_columns
        tiles_of_identity = max(1, config.rows // config.columns)

        stream = layer.weights
        bits_512 = (weights + CHUNK_SUBVECTORS - 1) >> (CHUNK_SUBVECTORS - 1).bit_length()
        bad_stream = Signal()
        with m.Switch(stream.method):
            with m.Case(Method.INT8):
                granules = (weights + GRANULE_BYTES - 1) >> (GRANULE_BYTES - 1).bit_length()
                m.d.comb += bad_stream.eq(stream.stream_granules != granules)
            with m.Case(Method.CODES):
                m.d.comb += bad_stream.eq(stream.chunks != bits_512)
            with m.Default():
                before = (stream.chunks - 1)[:32] << stream.log2_d[:3]
                m.d.comb += bad_stream.eq(before + stream.last_granules != bits_512)
        return (
            zero
            | Mux(walk.pool, output.positions != 1, output.positions != positions)
            | (output.blocks != walk.blocks)
            | (output.pixel_words < output.blocks)
            | (output.last_rows > config.rows)
            | (layer.weighted == tile.identity)
            | Mux(
                layer.weighted,
                (blocks != walk.blocks) | (tiles_of_row != tiles_of_window) | bad_stream,
                (tile.tiles != walk.blocks * tiles_of_identity)
                | (tiles_of_window != tiles_of_identity),
            )
        )
