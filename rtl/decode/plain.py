"""Plain decoder: int8 alone, for instances without codebooks and codes."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from rtl.bus.queue import StreamQueue
from rtl.config import StreamerConfig
from rtl.decode.decoder import decoder_signature
from rtl.decode.gather import Gather
from rtl.decode.router import TRANSFER
from rtl.descriptor import LAYER

__all__ = ["PlainDecoder"]


class PlainDecoder(wiring.Component):
    """Pass int8 weights on, eight bus beats joined to one output beat.

    What is left of a :class:`~rtl.decode.decoder.Decoder` if every layer is ``raw``: it takes its
    place when ``config.int8_only`` is set. Codebooks and zeros are never asked for.

    Members are those of :class:`~rtl.decode.decoder.Decoder`; ``zero_beats`` and
    ``codebook_transfer`` are never valid, ``codebook`` and ``zero_rows`` never ready.

    Parameters
    ----------
    config : StreamerConfig
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(decoder_signature(config))

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.gather = gather = Gather(config)
        m.submodules.layers = layers = StreamQueue(LAYER, config.layers_in_flight)
        m.submodules.transfers = transfers = StreamQueue(TRANSFER, config.layers_in_flight)
        connect(m, gather.output, flipped(self.weights))
        connect(m, transfers.get, flipped(self.transfer))

        beat = self.beats.payload
        beat_shift = (config.granule_beats - 1).bit_length()
        count = Signal(32 + beat_shift)
        beats, bursts, error = Signal(32), Signal(32), Signal()
        moved = self.beats.valid & self.beats.ready
        ends = count == (layers.get.p.stream_granules << beat_shift) - 1
        layer_ends = moved & ends
        m.d.comb += [
            layers.put.payload.eq(self.layer.payload),
            layers.put.valid.eq(self.layer.valid),
            layers.get.ready.eq(layer_ends),
            self.beats.ready.eq(layers.get.valid & gather.enable),
            gather.valid.eq(self.beats.valid & layers.get.valid),
            gather.raw.eq(1),
            gather.last.eq(ends),
            gather.raw_beat.eq(beat.data),
            transfers.put.valid.eq(layer_ends),
            # A stream ends with a burst. If the memory disagrees, it lost or added a beat.
            transfers.put.p.error.eq(error | beat.error | (layer_ends & ~beat.last)),
            transfers.put.p.beats.eq(beats + 1),
            transfers.put.p.bursts.eq(bursts + beat.last),
        ]
        with m.If(moved):
            m.d.sync += [
                count.eq(count + 1),
                beats.eq(transfers.put.p.beats),
                bursts.eq(transfers.put.p.bursts),
                error.eq(transfers.put.p.error),
            ]
        with m.If(layer_ends):
            m.d.sync += [count.eq(0), beats.eq(0), bursts.eq(0), error.eq(0)]
        return m
