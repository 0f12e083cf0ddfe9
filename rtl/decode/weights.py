"""Weights of layer after layer: what to fetch, and the decoder with all that it needs."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.channel import REGION, beat_layout
from rtl.bus.queue import StreamQueue
from rtl.config import StreamerConfig
from rtl.decode.decoder import Decoder
from rtl.decode.gather import weight_layout
from rtl.decode.plain import PlainDecoder
from rtl.decode.router import TRANSFER
from rtl.decode.zeros import ZeroRows
from rtl.descriptor import DESCRIPTOR, CodebookMode, Method
from vq.container import GRANULE_BYTES

__all__ = ["WeightReader"]


class WeightReader(wiring.Component):
    """Turn checked descriptors into regions to read, and what was read into weights.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    layer : In(stream.Signature(DESCRIPTOR))
        A layer that passed its checks. Not ready while ``layers_in_flight`` layers have weights
        that did not leave yet.
    codebook_region, stream_region : Out(stream.Signature(REGION))
        To the DMA.
    codebook, beats : In(stream.Signature(beat_layout(config)))
        From the DMA.
    weights : Out(stream.Signature(weight_layout(config)))
        W weights per beat.
    transfer, codebook_transfer : Out(stream.Signature(TRANSFER))
        See :class:`~rtl.decode.decoder.Decoder`.
    awaits_codebook : Out(1)
        See :class:`~rtl.decode.decoder.Decoder`.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(DESCRIPTOR)),
                "codebook_region": Out(stream.Signature(REGION)),
                "stream_region": Out(stream.Signature(REGION)),
                "codebook": In(stream.Signature(beat_layout(config))),
                "beats": In(stream.Signature(beat_layout(config))),
                "weights": Out(stream.Signature(weight_layout(config))),
                "transfer": Out(stream.Signature(TRANSFER)),
                "codebook_transfer": Out(stream.Signature(TRANSFER)),
                "awaits_codebook": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        kind = PlainDecoder if config.int8_only else Decoder
        m.submodules.decoder = decoder = kind(config)
        m.submodules.zero_rows = zero_rows = ZeroRows(config)
        m.submodules.codebook_regions = codebook_regions = StreamQueue(
            REGION, config.layers_in_flight
        )
        m.submodules.stream_regions = stream_regions = StreamQueue(REGION, config.layers_in_flight)
        connect(m, codebook_regions.get, flipped(self.codebook_region))
        connect(m, stream_regions.get, flipped(self.stream_region))
        connect(m, flipped(self.codebook), decoder.codebook)
        connect(m, flipped(self.beats), decoder.beats)
        connect(m, decoder.zero_beats, zero_rows.beats)
        connect(m, zero_rows.rows, decoder.zero_rows)
        connect(m, decoder.weights, flipped(self.weights))
        connect(m, decoder.transfer, flipped(self.transfer))
        connect(m, decoder.codebook_transfer, flipped(self.codebook_transfer))
        m.d.comb += self.awaits_codebook.eq(decoder.awaits_codebook)

        # Every queue holds `layers_in_flight` layers, and no more are let in: none overflows.
        in_flight = Signal(range(config.layers_in_flight + 1))
        accepted = Signal()
        finished = self.weights.valid & self.weights.ready & self.weights.p.last
        m.d.sync += in_flight.eq(in_flight + accepted - finished)

        layer = self.layer.payload
        shift = (GRANULE_BYTES - 1).bit_length()
        loads = layer.codebook_mode == CodebookMode.LOAD
        zeros = layer.codebook_mode == CodebookMode.ZEROS
        parity = layer.method == Method.SSVQ_PARITY
        codes = layer.method == Method.CODES
        m.d.comb += [
            self.layer.ready.eq(in_flight != config.layers_in_flight),
            accepted.eq(self.layer.valid & self.layer.ready),
            codebook_regions.put.valid.eq(accepted & (loads | zeros) & (not config.int8_only)),
            codebook_regions.put.p.granules.eq(layer.codebook_granules),
            codebook_regions.put.p.address.eq(layer.codebook_address >> shift),
            stream_regions.put.valid.eq(accepted),
            stream_regions.put.p.granules.eq(layer.stream_granules),
            stream_regions.put.p.address.eq(layer.stream_address >> shift),
            decoder.layer.valid.eq(accepted),
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
