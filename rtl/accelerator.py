"""Top of the design: a program and a packed file in memory, a network's outputs in memory."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.accelerator_config import AcceleratorConfig
from rtl.bus.axi import LiteSignature, ReadSignature
from rtl.bus.channel import REGION
from rtl.bus.dma import ReadDMA
from rtl.bus.queue import StreamQueue
from rtl.bus.write import WriteDMA, WriteSignature
from rtl.compute.engine import Engine, scaling_layout
from rtl.compute.outputs import OUTPUT_LAYER, OutputBuffer
from rtl.compute.tile import TILE_LAYER
from rtl.compute.walk import WALK_LAYER
from rtl.control.account import Account
from rtl.control.fetch import Fetcher
from rtl.control.registers import ADDRESS_BITS, IDENTITY, RegisterFile
from rtl.control.run import RunControl
from rtl.decode.weights import WeightReader
from rtl.descriptor import DESCRIPTOR, STALL_CAUSES
from rtl.transfer.load import LOAD_LAYER, SLOTS, Loader
from rtl.transfer.parameters import PARAMETER_LAYER, ParameterReader
from rtl.transfer.store import STORE_LAYER, Store

__all__ = ["Accelerator", "accelerator_signature"]

#: Channels of the read DMA, the most urgent first.
_CHANNELS = ("descriptors", "parameters", "codebooks", "activations", "weights")


def accelerator_signature(config: AcceleratorConfig) -> wiring.Signature:
    """Ports of an :class:`Accelerator`, which documents them."""
    bus = {"address_bits": config.address_bits, "data_bits": config.bus_bits}
    memory = {**ReadSignature(**bus).members, **WriteSignature(**bus).members}
    return wiring.Signature(
        {
            "s_axi": In(LiteSignature(address_bits=ADDRESS_BITS)),
            "m_axi": Out(wiring.Signature(memory)),
            "irq": Out(1),
        }
    )


class Accelerator(wiring.Component):
    """Run the layers of a network one after another, from their packed file.

    The host writes the address and the length of a program into registers and starts it. The
    instance fetches descriptors ahead, reads codebooks, weights, parameters and activations as
    soon as there is room for them, and computes as soon as they are there; outputs go back to
    memory, and a record of its cycles behind each layer's outputs. Then it says done.

    An error ends the run with a status, after everything that was under way has come to its end. If
    the memory never answers, the run ends with STALLED after the cycles in the register TIMEOUT;
    only a reset helps then. Reset (synchronous, active high) is allowed in any cycle, if the
    memory's side is reset with it.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    s_axi : In(LiteSignature)
        Registers: :mod:`rtl.control.registers`.
    m_axi : Out(ReadSignature and WriteSignature together)
        To the memory.
    irq : Out(1)
        The run is done, and interrupts are enabled. High until the next start.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform: object) -> Module:
        config = self.config
        streamer, array = config.streamer, config.array
        m = Module()
        m.submodules.registers = registers = RegisterFile()
        m.submodules.run = run = RunControl()
        m.submodules.fetcher = fetcher = Fetcher(config)
        m.submodules.weights = weights = WeightReader(streamer)
        m.submodules.parameters = parameters = ParameterReader(streamer, array)
        m.submodules.loader = loader = Loader(streamer, array)
        m.submodules.engine = engine = Engine(array)
        m.submodules.outputs = outputs = OutputBuffer(array)
        m.submodules.store = store = Store(streamer, array)
        m.submodules.account = account = Account()
        m.submodules.reads = reads = ReadDMA(
            streamer, [*(config.burst_bytes,) * 3, config.fifo_bytes, config.fifo_bytes]
        )
        m.submodules.writes = writes = WriteDMA(
            address_bits=config.address_bits,
            data_bits=config.bus_bits,
            burst_bytes=config.burst_bytes,
        )
        connect(m, flipped(self.s_axi), registers.s_axi)
        for master in (reads.m_axi, writes.m_axi):
            for name, member in master.signature.members.items():
                inner, outer = getattr(master, name), getattr(self.m_axi, name)
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)

        # Layers, from the fetcher to everyone who needs to know of them.
        layer = fetcher.layer.payload
        parameter_region = Signal(REGION)
        parameter_layer = Signal(PARAMETER_LAYER)
        m.d.comb += [
            parameter_region.address.eq(layer.parameters),
            parameter_region.granules.eq(layer.parameter_granules),
            parameter_layer.blocks.eq(layer.walk.blocks),
            parameter_layer.groups.eq(layer.groups),
            parameter_layer.positions.eq(layer.output.positions),
            parameter_layer.relu.eq(layer.relu),
            parameter_layer.group_shift.eq(layer.group_shift),
        ]
        queues: dict[str, StreamQueue] = {}
        everyone: Value = Const(1)
        for name, shape, what, wanted in (
            ("weight_layers", DESCRIPTOR, layer.weights, layer.weighted),
            ("parameter_regions", REGION, parameter_region, 1),
            ("parameter_layers", PARAMETER_LAYER, parameter_layer, 1),
            ("load_layers", LOAD_LAYER, layer.load, 1),
            ("tile_layers", TILE_LAYER, layer.tile, 1),
            ("walk_layers", WALK_LAYER, layer.walk, 1),
            ("input_frees", data.StructLayout({"frees": 1}), layer.frees_input, 1),
            ("output_layers", OUTPUT_LAYER, layer.output, 1),
            ("store_layers", STORE_LAYER, layer.store, 1),
        ):
            queues[name] = queue = StreamQueue(shape, 2 * SLOTS)
            m.submodules[name] = queue
            everyone = everyone & queue.put.ready
            m.d.comb += [
                Value.cast(queue.put.payload).eq(what),
                queue.put.valid.eq(fetcher.layer.valid & fetcher.layer.ready & wanted),
            ]
        m.d.comb += fetcher.layer.ready.eq(everyone)
        connect(m, queues["weight_layers"].get, weights.layer)
        connect(m, queues["parameter_layers"].get, parameters.layer)
        connect(m, queues["load_layers"].get, loader.layer)
        connect(m, queues["tile_layers"].get, engine.tiles)
        connect(m, queues["output_layers"].get, outputs.layer)
        connect(m, queues["store_layers"].get, store.layer)

        # Memory to buffers.
        regions = (
            fetcher.region,
            queues["parameter_regions"].get,
            weights.codebook_region,
            loader.region,
            weights.stream_region,
        )
        sinks = (fetcher.beats, parameters.beats, weights.codebook, loader.beats, weights.beats)
        for i, (region, sink) in enumerate(zip(regions, sinks, strict=True)):
            connect(m, region, reads.regions[i])
            connect(m, reads.beats[i], sink)
        # A block's numbers wait here while those of the block before are in use.
        m.submodules.scalings = scalings = StreamQueue(scaling_layout(array), 2)
        connect(m, parameters.scaling, scalings.put)
        connect(m, scalings.get, engine.scaling)
        connect(m, parameters.scales, engine.scales)
        m.d.comb += [engine.write.eq(loader.input), outputs.load.eq(loader.output)]

        # A layer is walked over once its activations are there.
        walks = queues["walk_layers"].get
        frees = queues["input_frees"].get
        loaded = Signal(range(2 * SLOTS + 1))
        m.d.sync += loaded.eq(loaded + loader.loaded - (walks.valid & walks.ready))
        m.d.comb += [
            engine.windows.payload.eq(walks.payload),
            engine.windows.valid.eq(walks.valid & (loaded != 0)),
            walks.ready.eq(engine.windows.ready & (loaded != 0)),
            frees.ready.eq(engine.released),
            loader.input_free.eq(engine.released & frees.p.frees),
        ]

        # Beats of padding behind a layer's last weight are nobody's.
        dropping = Signal()
        beat = weights.weights
        beat_taken = beat.valid & beat.ready
        tile_ends = engine.tiles.valid & engine.tiles.ready & ~engine.tiles.p.identity
        m.d.comb += [
            engine.weights.p.eq(beat.p.data),
            engine.weights.valid.eq(beat.valid & ~dropping),
            beat.ready.eq(dropping | engine.weights.ready),
        ]
        with m.If(beat_taken & beat.p.last):
            m.d.sync += dropping.eq(0)
        with m.Elif(tile_ends):
            m.d.sync += dropping.eq(1)

        # Outputs to memory.
        connect(m, engine.words, outputs.words)
        connect(m, store.region, writes.region)
        connect(m, store.beats, writes.beats)
        m.d.comb += [
            store.complete.eq(outputs.layer.valid & outputs.layer.ready),
            store.stored.eq(outputs.stored),
            outputs.read.eq(store.read),
            store.data.eq(outputs.data),
            store.record.payload.eq(account.record.payload),
            store.record.valid.eq(account.record.valid),
            account.record.ready.eq(store.record.ready),
            loader.output_free.eq(store.free),
        ]
        unwritten = Signal(range(2 * SLOTS + 1))  # layers that have started to load
        unfinished = Signal(17)  # layers that were handed on
        handed_on = fetcher.layer.valid & fetcher.layer.ready
        m.d.sync += [
            unwritten.eq(unwritten + loader.started - store.finished),
            unfinished.eq(unfinished + handed_on - store.finished),
        ]
        m.d.comb += loader.all_written.eq((unwritten == 0) & (writes.pending == 0))
        to_come = Signal()  # not all layers have been walked over
        walked = Signal(17)
        m.d.comb += to_come.eq(fetcher.busy | (walked != 0))
        m.d.sync += walked.eq(walked + handed_on - engine.layer_ends)

        m.d.comb += [
            run.request.eq(registers.start),
            run.timeout.eq(registers.written.timeout),
            run.refused.eq(fetcher.failed),
            run.refusal.eq(fetcher.status),
            run.fetched.eq(fetcher.number),
            run.finished.eq(store.finished),
            run.drained.eq(~fetcher.busy & (unfinished == 0) & (writes.pending == 0)),
            run.write_error.eq(writes.error),
            run.read_error.eq(
                parameters.error
                | loader.error
                | (weights.transfer.valid & weights.transfer.p.error)
                | (weights.codebook_transfer.valid & weights.codebook_transfer.p.error)
            ),
            run.moves.eq(
                engine.busy
                | (self.m_axi.rvalid & self.m_axi.rready)
                | (self.m_axi.wvalid & self.m_axi.wready)
                | self.m_axi.bvalid
            ),
            weights.transfer.ready.eq(1),
            weights.codebook_transfer.ready.eq(1),
            fetcher.start.eq(run.start),
            fetcher.stop.eq(run.stop),
            fetcher.layers.eq(registers.written.layers),
            fetcher.program.eq(
                Cat(registers.written.program_low, registers.written.program_high) >> 6
            ),
            self.irq.eq(run.done & registers.written.control[1]),
        ]

        # Why no vector enters the array.
        awaits_beat = engine.awaits_weights & ~beat.valid & ~engine.tiles.p.identity
        m.d.comb += [
            account.start.eq(run.start),
            account.running.eq(run.busy),
            account.busy.eq(engine.busy),
            account.layer_ends.eq(engine.layer_ends),
            account.memory.eq(
                (awaits_beat & ~weights.awaits_codebook)
                | (engine.blocked & ~engine.scaling.valid)
                | (engine.awaits_vectors & ~loader.awaits_writes & (loaded == 0) & to_come)
            ),
            account.codebook.eq(awaits_beat & weights.awaits_codebook),
            account.decoder.eq(engine.awaits_weights & beat_taken),
            account.compute.eq(
                engine.awaits_weights | engine.blocked | (engine.awaits_vectors & (loaded != 0))
            ),
        ]

        values = registers.values
        m.d.comb += [
            values.identity.eq(IDENTITY),
            values.status.eq(Cat(run.busy, run.done, Const(0, 6), run.status, run.layer)),
            values.layers_done.eq(run.layers_done),
            values.cycles.eq(account.cycles),
            values.busy_cycles.eq(account.busy_cycles),
        ]
        for cause in STALL_CAUSES:
            name = f"{cause}_cycles"
            m.d.comb += getattr(values, name).eq(getattr(account, name))
        counted = {
            "read_bursts": self.m_axi.arvalid & self.m_axi.arready,
            "written": writes.beats_written,
            "write_bursts": writes.bursts_written,
        } | {
            f"read_{name}": reads.beats[i].valid & reads.beats[i].ready
            for i, name in enumerate(_CHANNELS)
        }
        for name, event in counted.items():
            counter = Signal(32, name=name)
            m.d.sync += counter.eq(Mux(run.start, 0, counter + event))
            m.d.comb += getattr(values, name).eq(counter)
        return m
