"""Top of the design: layer descriptors and memory in, int8 weights and reports out."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.axi import ReadSignature
from rtl.bus.dma import ReadDMA
from rtl.bus.queue import StreamQueue
from rtl.checker import DescriptorChecker
from rtl.config import StreamerConfig
from rtl.decode.counters import OUTCOME, LayerCounters
from rtl.decode.gather import weight_layout
from rtl.decode.weights import WeightReader
from rtl.descriptor import DESCRIPTOR, REPORT, CodebookMode, Status

__all__ = ["WeightStreamer", "streamer_signature"]


def streamer_signature(config: StreamerConfig) -> wiring.Signature:
    """Ports of a :class:`WeightStreamer`, which documents them."""
    memory = ReadSignature(address_bits=config.address_bits, data_bits=config.bus_bits)
    return wiring.Signature(
        {
            "descriptor": In(stream.Signature(DESCRIPTOR)),
            "m_axi": Out(memory),
            "weights": Out(stream.Signature(weight_layout(config))),
            "report": Out(stream.Signature(REPORT)),
        }
    )


class WeightStreamer(wiring.Component):
    """Stream the weights of a network, layer by layer, from its packed file in memory.

    The host gives one descriptor per layer and takes one report per layer, both in order.
    Descriptors may be given ahead: the DMA then reads the next layer while the current one
    is decoded, and the next codebook is loaded under it. A layer that fails its checks is reported
    and skipped; later layers run.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    descriptor : In(stream.Signature(DESCRIPTOR))
        A layer to run. Not ready while ``layers_in_flight`` layers are without a taken report.
    m_axi : Out(ReadSignature)
        To the memory that holds the file.
    weights : Out(stream.Signature(weight_layout(config)))
        The layers' weights in stream order, W per beat.
    report : Out(stream.Signature(REPORT))
        Status and counters of each layer. A host that does not take reports stops the intake
        of descriptors, never the weights.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self.config = config
        super().__init__(streamer_signature(config))

    def elaborate(self, platform: object) -> Module:
        config = self.config
        m = Module()
        m.submodules.checker = checker = DescriptorChecker(config)
        m.submodules.dma = dma = ReadDMA(config, (config.fifo_bytes, config.fifo_bytes))
        m.submodules.weights = weights = WeightReader(config)
        m.submodules.counters = counters = LayerCounters(config)
        m.submodules.outcomes = outcomes = StreamQueue(OUTCOME, config.layers_in_flight)

        # Every queue holds `layers_in_flight` layers, and no more are let in: none overflows.
        in_flight = Signal(range(config.layers_in_flight + 1))
        room = in_flight != config.layers_in_flight
        accepted = self.descriptor.valid & self.descriptor.ready
        reported = self.report.valid & self.report.ready
        m.d.sync += in_flight.eq(in_flight + accepted - reported)
        m.d.comb += [
            checker.descriptor.payload.eq(self.descriptor.payload),
            checker.descriptor.valid.eq(self.descriptor.valid & room),
            self.descriptor.ready.eq(checker.descriptor.ready & room),
            counters.accepted.eq(accepted),
        ]

        connect(m, dma.m_axi, flipped(self.m_axi))
        connect(m, weights.codebook_region, dma.regions[0])
        connect(m, weights.stream_region, dma.regions[1])
        connect(m, dma.beats[0], weights.codebook)
        connect(m, dma.beats[1], weights.beats)
        connect(m, outcomes.get, counters.outcome)
        connect(m, weights.transfer, counters.transfer)
        connect(m, weights.codebook_transfer, counters.codebook_transfer)
        connect(m, counters.report, flipped(self.report))
        m.d.comb += [
            self.weights.payload.eq(weights.weights.payload),
            self.weights.valid.eq(weights.weights.valid & ~counters.hold),
            weights.weights.ready.eq(self.weights.ready & ~counters.hold),
            counters.offered.eq(weights.weights.valid),
            counters.leaves.eq(self.weights.valid & self.weights.ready),
            counters.last.eq(weights.weights.p.last),
            counters.awaits_codebook.eq(weights.awaits_codebook),
        ]

        # A checked layer goes to the weights and to the counters in one cycle.
        verdict = checker.verdict
        layer = verdict.p.descriptor
        m.d.comb += [
            verdict.ready.eq(1),
            outcomes.put.valid.eq(verdict.valid),
            outcomes.put.p.status.eq(verdict.p.status),
            outcomes.put.p.load.eq(layer.codebook_mode == CodebookMode.LOAD),
            outcomes.put.p.keep.eq(layer.codebook_mode == CodebookMode.KEEP),
            outcomes.put.p.zeros.eq(layer.codebook_mode == CodebookMode.ZEROS),
            weights.layer.payload.eq(layer),
            weights.layer.valid.eq(verdict.valid & (verdict.p.status == Status.OK)),
        ]
        return m
