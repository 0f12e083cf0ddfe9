"""Top of the design: layer descriptors and memory in, int8 weights and reports out."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.axi import ReadSignature
from rtl.channel import REGION
from rtl.checker import DescriptorChecker
from rtl.config import StreamerConfig
from rtl.counters import OUTCOME, LayerCounters
from rtl.decoder import Decoder
from rtl.descriptor import DESCRIPTOR, REPORT, CodebookMode, Method, Status
from rtl.dma import ReadDMA
from rtl.gather import weight_layout
from rtl.queue import StreamQueue
from rtl.zeros import ZeroRows
from vq.container import GRANULE_BYTES

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
        m.submodules.decoder = decoder = Decoder(config)
        m.submodules.zero_rows = zero_rows = ZeroRows(config)
        m.submodules.counters = counters = LayerCounters(config)
        m.submodules.codebook_regions = codebook_regions = StreamQueue(
            REGION, config.layers_in_flight
        )
        m.submodules.stream_regions = stream_regions = StreamQueue(REGION, config.layers_in_flight)
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
        connect(m, codebook_regions.get, dma.regions[0])
        connect(m, stream_regions.get, dma.regions[1])
        connect(m, outcomes.get, counters.outcome)
        connect(m, dma.beats[0], decoder.codebook)
        connect(m, dma.beats[1], decoder.beats)
        connect(m, decoder.zero_beats, zero_rows.beats)
        connect(m, zero_rows.rows, decoder.zero_rows)
        connect(m, decoder.transfer, counters.transfer)
        connect(m, decoder.codebook_transfer, counters.codebook_transfer)
        connect(m, counters.report, flipped(self.report))
        m.d.comb += [
            self.weights.payload.eq(decoder.weights.payload),
            self.weights.valid.eq(decoder.weights.valid & ~counters.hold),
            decoder.weights.ready.eq(self.weights.ready & ~counters.hold),
            counters.offered.eq(decoder.weights.valid),
            counters.leaves.eq(self.weights.valid & self.weights.ready),
            counters.last.eq(decoder.weights.p.last),
            counters.awaits_codebook.eq(decoder.awaits_codebook),
        ]

        # A checked layer goes to DMA, decoder and counters in one cycle.
        verdict = checker.verdict
        layer = verdict.p.descriptor
        shift = (GRANULE_BYTES - 1).bit_length()
        runs = Signal()
        loads = Signal()
        zeros = Signal()
        parity = Signal()
        codes = Signal()
        m.d.comb += [
            parity.eq(layer.method == Method.SSVQ_PARITY),
            verdict.ready.eq(1),
            runs.eq(verdict.valid & (verdict.p.status == Status.OK)),
            loads.eq(layer.codebook_mode == CodebookMode.LOAD),
            zeros.eq(layer.codebook_mode == CodebookMode.ZEROS),
            codes.eq(layer.method == Method.CODES),
            outcomes.put.valid.eq(verdict.valid),
            outcomes.put.p.status.eq(verdict.p.status),
            outcomes.put.p.load.eq(loads),
            outcomes.put.p.keep.eq(layer.codebook_mode == CodebookMode.KEEP),
            outcomes.put.p.zeros.eq(zeros),
            codebook_regions.put.valid.eq(runs & (loads | zeros)),
            codebook_regions.put.p.granules.eq(layer.codebook_granules),
            codebook_regions.put.p.address.eq(layer.codebook_address >> shift),
            stream_regions.put.valid.eq(runs),
            stream_regions.put.p.granules.eq(layer.stream_granules),
            stream_regions.put.p.address.eq(layer.stream_address >> shift),
            decoder.layer.valid.eq(runs),
            decoder.layer.p.raw.eq(layer.method == Method.INT8),
            decoder.layer.p.signed.eq((layer.method == Method.SSVQ) | parity),
            decoder.layer.p.parity.eq(parity),
            decoder.layer.p.codes.eq(codes),
            decoder.layer.p.load.eq(loads | zeros),
            decoder.layer.p.zeros.eq(zeros),
            decoder.layer.p.log2_d.eq(Mux(codes, 0, layer.log2_d)),
            decoder.layer.p.index_bits.eq(layer.index_bits),
            decoder.layer.p.last_granules.eq(Mux(codes, 1, layer.last_granules)),
            decoder.layer.p.last_sign_granules.eq(
                Mux(parity, layer.last_sign_granules, layer.last_granules)
            ),
            decoder.layer.p.codebook_granules.eq(layer.codebook_granules),
            decoder.layer.p.stream_granules.eq(layer.stream_granules),
            decoder.layer.p.chunks.eq(layer.chunks),
            decoder.layer.p.group_beats.eq(layer.group_beats),
            decoder.layer.p.block_beats.eq(layer.block_beats),
        ]
        return m
