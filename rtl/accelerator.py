"""Top of the design: a program and a packed file in memory, a network's outputs in memory."""

from typing import Any

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
from rtl.program import RUN_CAUSES, VECTOR_LAYER, VECTOR_VERSION
from rtl.transfer.load import LOAD_LAYER, SLOTS, Loader
from rtl.transfer.parameters import PARAMETER_LAYER, ParameterReader
from rtl.transfer.store import STORE_LAYER, Store
from rtl.vector.engine import OPERANDS, VectorEngine
from rtl.vector.job import JOB
from vq.container import GRANULE_BYTES

__all__ = ["Accelerator", "accelerator_signature"]

#: Channels of the read DMA, the most urgent first; those of the vector unit go between.
_URGENT, _LONG = ("descriptors", "parameters", "codebooks"), ("activations", "weights")


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
        vector = bool(config.vector_unit)
        # With a vector unit, memory is read and written in beats, whose rows may be one.
        unit_bytes = config.bus_bytes if vector else GRANULE_BYTES
        m = Module()
        m.submodules.registers = registers = RegisterFile(vector)
        m.submodules.run = run = RunControl()
        m.submodules.fetcher = fetcher = Fetcher(config)
        m.submodules.weights = weights = WeightReader(streamer)
        m.submodules.parameters = parameters = ParameterReader(streamer, array)
        m.submodules.loader = loader = Loader(streamer, array)
        m.submodules.engine = engine = Engine(array)
        m.submodules.outputs = outputs = OutputBuffer(array)
        m.submodules.store = store = Store(streamer, array)
        m.submodules.account = account = Account(vector)
        channels = (*_URGENT, *OPERANDS * vector, *_LONG)
        fifos = [config.burst_bytes if n in _URGENT else config.fifo_bytes for n in channels]
        m.submodules.reads = reads = ReadDMA(streamer, fifos, unit_bytes)
        m.submodules.writes = writes = WriteDMA(
            address_bits=config.address_bits,
            data_bits=config.bus_bits,
            burst_bytes=config.burst_bytes,
            unit_bytes=unit_bytes,
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
        handed_on = fetcher.layer.valid & fetcher.layer.ready
        of_vector = layer.version == VECTOR_VERSION
        to_array = handed_on & ~of_vector if vector else handed_on
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
            given = fetcher.layer.valid & fetcher.layer.ready & wanted
            m.d.comb += [
                Value.cast(queue.put.payload).eq(what),
                queue.put.valid.eq(given & ~of_vector if vector else given),
            ]
        # Layers that are under way, of the array and of the vector unit.
        unwritten = Signal(range(2 * SLOTS + 1))  # layers that have started to load
        unfinished = Signal(17)  # layers that were handed on
        loaded = Signal(range(2 * SLOTS + 1))
        started, finished, ready = loader.started, store.finished, everyone
        layer_ends, record_ready = engine.layer_ends, store.record.ready
        held_up: Value | None = None  # no vector may enter
        if vector:
            m.submodules.vector = unit = VectorEngine(config.vector, streamer)
            m.submodules.jobs = jobs = StreamQueue(JOB, 2)
            connect(m, jobs.get, unit.job)
            for name in OPERANDS:
                i = channels.index(name)
                connect(m, getattr(unit, f"{name}_region"), reads.regions[i])
                connect(m, reads.beats[i], getattr(unit, name))
            # An operation begins when all before it is in memory; of what follows, weights and
            # parameters come meanwhile, but no vector enters the array.
            drained = (unfinished == 0) & (writes.pending == 0)
            ready = Mux(of_vector, drained & jobs.put.ready, everyone)
            m.d.comb += [
                jobs.put.payload.eq(data.View(VECTOR_LAYER, layer.as_value()).job),
                jobs.put.valid.eq(handed_on & of_vector),
            ]
            started = started + (handed_on & of_vector)
            finished = finished | unit.finished
            layer_ends = layer_ends | unit.ends
            under_way = Signal()  # from the hand-over on
            with m.If(handed_on & of_vector):
                m.d.sync += under_way.eq(1)
            with m.Elif(unit.ends):
                m.d.sync += under_way.eq(0)
            held_up = under_way
            writing = unit.job.valid
            record_ready = Mux(writing, unit.record.ready, record_ready)
            m.d.comb += [
                unit.record.payload.eq(account.record.payload),
                unit.record.valid.eq(account.record.valid),
            ]
        m.d.comb += fetcher.layer.ready.eq(ready)
        connect(m, queues["weight_layers"].get, weights.layer)
        connect(m, queues["parameter_layers"].get, parameters.layer)
        connect(m, queues["load_layers"].get, loader.layer)
        connect(m, queues["tile_layers"].get, engine.tiles)
        connect(m, queues["output_layers"].get, outputs.layer)
        connect(m, queues["store_layers"].get, store.layer)

        # Memory to buffers.
        regions = {
            "descriptors": fetcher.region,
            "parameters": queues["parameter_regions"].get,
            "codebooks": weights.codebook_region,
            "activations": loader.region,
            "weights": weights.stream_region,
        }
        sinks = {
            "descriptors": fetcher.beats,
            "parameters": parameters.beats,
            "codebooks": weights.codebook,
            "activations": loader.beats,
            "weights": weights.beats,
        }
        for name, region in regions.items():
            i = channels.index(name)
            _connect_region(m, region, reads.regions[i], unit_bytes)
            connect(m, reads.beats[i], sinks[name])
        # A block's numbers wait here while those of the block before are in use.
        m.submodules.scalings = scalings = StreamQueue(scaling_layout(array), 2)
        connect(m, parameters.scaling, scalings.put)
        connect(m, scalings.get, engine.scaling)
        connect(m, parameters.scales, engine.scales)
        m.d.comb += [engine.write.eq(loader.input), outputs.load.eq(loader.output)]

        # A layer is walked over once its activations are there.
        walks = queues["walk_layers"].get
        frees = queues["input_frees"].get
        m.d.sync += loaded.eq(loaded + loader.loaded - (walks.valid & walks.ready))
        may_walk = [loaded != 0 if held_up is None else (loaded != 0) & ~held_up for _ in "ab"]
        m.d.comb += [
            engine.windows.payload.eq(walks.payload),
            engine.windows.valid.eq(walks.valid & may_walk[0]),
            walks.ready.eq(engine.windows.ready & may_walk[1]),
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
        if vector:
            self._join_writes(m, unit, store, writes)
        else:
            connect(m, store.region, writes.region)
            connect(m, store.beats, writes.beats)
        m.d.comb += [
            store.complete.eq(outputs.layer.valid & outputs.layer.ready),
            store.stored.eq(outputs.stored),
            outputs.read.eq(store.read),
            store.data.eq(outputs.data),
            store.record.payload.eq(account.record.payload),
            store.record.valid.eq(account.record.valid),
            account.record.ready.eq(record_ready),
            loader.output_free.eq(store.free),
        ]
        m.d.sync += [
            unwritten.eq(unwritten + started - finished),
            unfinished.eq(unfinished + handed_on - finished),
        ]
        m.d.comb += loader.all_written.eq((unwritten == 0) & (writes.pending == 0))
        to_come = Signal()  # not all layers have been walked over
        walked = Signal(17)
        m.d.comb += to_come.eq(fetcher.busy | (walked != 0))
        m.d.sync += walked.eq(walked + to_array - engine.layer_ends)

        read_error = (
            parameters.error
            | loader.error
            | (weights.transfer.valid & weights.transfer.p.error)
            | (weights.codebook_transfer.valid & weights.codebook_transfer.p.error)
        )
        moves = (
            engine.busy
            | (self.m_axi.rvalid & self.m_axi.rready)
            | (self.m_axi.wvalid & self.m_axi.wready)
            | self.m_axi.bvalid
        )
        if vector:
            read_error, moves = read_error | unit.error, moves | unit.moves
        m.d.comb += [
            run.request.eq(registers.start),
            run.timeout.eq(registers.written.timeout),
            run.refused.eq(fetcher.failed),
            run.refusal.eq(fetcher.status),
            run.fetched.eq(fetcher.number),
            run.finished.eq(finished),
            run.drained.eq(~fetcher.busy & (unfinished == 0) & (writes.pending == 0)),
            run.write_error.eq(writes.error),
            run.read_error.eq(read_error),
            run.moves.eq(moves),
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
        memory = (
            (awaits_beat & ~weights.awaits_codebook)
            | (engine.blocked & ~engine.scaling.valid)
            | (engine.awaits_vectors & ~loader.awaits_writes & (loaded == 0) & to_come)
        )
        compute = engine.awaits_weights | engine.blocked | (engine.awaits_vectors & (loaded != 0))
        if vector:
            memory = Mux(under_way, unit.starved, memory)
            compute = ~under_way & compute
            m.d.comb += account.vector.eq(under_way & ~unit.blocked)
        m.d.comb += [
            account.start.eq(run.start),
            account.running.eq(run.busy),
            account.busy.eq(engine.busy),
            account.layer_ends.eq(layer_ends),
            account.memory.eq(memory),
            account.codebook.eq(awaits_beat & weights.awaits_codebook),
            account.decoder.eq(engine.awaits_weights & beat_taken),
            account.compute.eq(compute),
        ]

        values = registers.values
        m.d.comb += [
            values.identity.eq(IDENTITY),
            values.status.eq(Cat(run.busy, run.done, Const(0, 6), run.status, run.layer)),
            values.layers_done.eq(run.layers_done),
            values.cycles.eq(account.cycles),
            values.busy_cycles.eq(account.busy_cycles),
        ]
        for cause in RUN_CAUSES if vector else STALL_CAUSES:
            name = f"{cause}_cycles"
            m.d.comb += getattr(values, name).eq(getattr(account, name))
        counted = {
            "read_bursts": self.m_axi.arvalid & self.m_axi.arready,
            "written": writes.beats_written,
            "write_bursts": writes.bursts_written,
        } | {
            f"read_{name}": reads.beats[i].valid & reads.beats[i].ready
            for i, name in enumerate(channels)
        }
        for name, event in counted.items():
            counter = Signal(32, name=name)
            m.d.sync += counter.eq(Mux(run.start, 0, counter + event))
            m.d.comb += getattr(values, name).eq(counter)
        return m

    @staticmethod
    def _join_writes(m: Module, unit: VectorEngine, store: Store, writes: WriteDMA) -> None:
        """One of both writes at a time: an operation begins when all before it is in memory."""
        for port in ("region", "beats"):
            of_unit, of_store, to = (getattr(part, port) for part in (unit, store, writes))
            m.d.comb += [
                to.valid.eq(Mux(unit.job.valid, of_unit.valid, of_store.valid)),
                of_unit.ready.eq(to.ready & unit.job.valid),
                of_store.ready.eq(to.ready & ~unit.job.valid),
            ]
        shift = (GRANULE_BYTES // (len(writes.beats.payload) // 8)).bit_length() - 1
        region = store.region.p
        m.d.comb += [
            writes.beats.payload.eq(Mux(unit.job.valid, unit.beats.payload, store.beats.payload)),
            writes.region.p.granules.eq(
                Mux(unit.job.valid, unit.region.p.granules, region.granules << shift)
            ),
            writes.region.p.address.eq(
                Mux(unit.job.valid, unit.region.p.address, region.address << shift)
            ),
        ]


def _connect_region(m: Module, region: Any, channel: Any, unit_bytes: int) -> None:
    """Hand regions of granules to a channel whose regions are in other units."""
    if unit_bytes == GRANULE_BYTES:
        connect(m, region, channel)
        return
    shift = (GRANULE_BYTES // unit_bytes).bit_length() - 1
    m.d.comb += [
        channel.valid.eq(region.valid),
        region.ready.eq(channel.ready),
        channel.p.granules.eq(region.p.granules << shift),
        channel.p.address.eq(region.p.address << shift),
    ]
