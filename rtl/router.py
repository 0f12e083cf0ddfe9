"""Router: which part of a layer each incoming beat belongs to."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from rtl.descriptor import LAYER
from rtl.dma import beat_layout

__all__ = ["TRANSFER", "Router", "plane_layout"]

#: What the bus did for one layer.
TRANSFER = data.StructLayout({"error": 1, "beats": 32, "bursts": 32})


def plane_layout(config: StreamerConfig) -> data.StructLayout:
    """One word of one bit-plane."""
    return data.StructLayout(
        {
            "data": config.bus_bits,
            "plane": range(config.index_bits_max),
            "word": range(max(2, config.granule_beats)),  # no port has zero width
            "last": 1,  # last word of the chunk's last plane
        }
    )


class _Part(enum.Enum, shape=2):  # type: ignore[call-arg]
    CODEBOOK = 0
    PLANES = 1
    SIGNS = 2
    RAW = 3


class Router(wiring.Component):
    """Send each beat to the codebook, the bit-planes, or the direct path (signs and int8).

    Counts only: the stream holds no headers. One beat passes per cycle, with no pause between
    chunks or layers.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    layer : In(stream.Signature(LAYER))
        Taken with the layer's last beat.
    beats : In(stream.Signature(beat_layout(config)))
        From the DMA.
    codebook : Out(stream.Signature(config.bus_bits))
        Beats of a codebook.
    planes : Out(stream.Signature(plane_layout(config)))
        Beats of an index part, with their place.
    direct : Out(stream.Signature(config.bus_bits))
        Beats of signs or of int8 weights.
    transfer : Out(stream.Signature(TRANSFER, always_ready=True))
        Given in the cycle of the layer's last beat; the receiver must have room.
    codebook_blocked : Out(1)
        A beat of a codebook waits because the codebook RAM is behind.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(LAYER)),
                "beats": In(stream.Signature(beat_layout(config))),
                "codebook": Out(stream.Signature(config.bus_bits)),
                "planes": Out(stream.Signature(plane_layout(config))),
                "direct": Out(stream.Signature(config.bus_bits)),
                "transfer": Out(stream.Signature(TRANSFER, always_ready=True)),
                "codebook_blocked": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer.payload
        beat = self.beats.payload
        beat_shift = (self._config.granule_beats - 1).bit_length()

        fresh = Signal(init=1)  # no beat of this layer has passed
        part_now = Signal(_Part)
        part_next = Signal(_Part)
        part = Signal(_Part)
        count = Signal(32 + beat_shift)
        chunk = Signal(32)
        granules = Signal(32)

        first_part = Mux(layer.load, _Part.CODEBOOK, Mux(layer.raw, _Part.RAW, _Part.PLANES))
        last_chunk = chunk == layer.chunks - 1
        m.d.comb += part.eq(Mux(fresh, first_part, part_now))

        target_ready = Signal()
        layer_ends = Signal()
        with m.Switch(part):
            with m.Case(_Part.CODEBOOK):
                m.d.comb += [
                    granules.eq(layer.codebook_granules),
                    target_ready.eq(self.codebook.ready),
                    part_next.eq(_Part.PLANES),
                ]
            with m.Case(_Part.PLANES):
                m.d.comb += [
                    granules.eq(layer.index_bits),
                    target_ready.eq(self.planes.ready),
                    part_next.eq(Mux(layer.signed, _Part.SIGNS, _Part.PLANES)),
                    layer_ends.eq(~layer.signed & last_chunk),
                ]
            with m.Case(_Part.SIGNS):
                m.d.comb += [
                    granules.eq(Mux(last_chunk, layer.last_granules, Const(1, 5) << layer.log2_d)),
                    target_ready.eq(self.direct.ready),
                    part_next.eq(_Part.PLANES),
                    layer_ends.eq(last_chunk),
                ]
            with m.Case(_Part.RAW):
                m.d.comb += [
                    granules.eq(layer.stream_granules),
                    target_ready.eq(self.direct.ready),
                    layer_ends.eq(1),
                ]

        present = Signal()
        moved = Signal()
        part_ends = Signal()
        region_ends = part_ends & (layer_ends | (part == _Part.CODEBOOK))
        m.d.comb += [
            present.eq(self.beats.valid & self.layer.valid),
            moved.eq(present & target_ready),
            part_ends.eq(count == (granules << beat_shift) - 1),
            self.beats.ready.eq(self.layer.valid & target_ready),
            self.layer.ready.eq(moved & part_ends & layer_ends),
            self.codebook.payload.eq(beat.data),
            self.codebook.valid.eq(present & (part == _Part.CODEBOOK)),
            self.codebook_blocked.eq(self.codebook.valid & ~self.codebook.ready),
            self.planes.p.data.eq(beat.data),
            self.planes.p.plane.eq(count >> beat_shift),
            self.planes.p.word.eq(count & ((1 << beat_shift) - 1)),
            self.planes.p.last.eq(part_ends),
            self.planes.valid.eq(present & (part == _Part.PLANES)),
            self.direct.payload.eq(beat.data),
            self.direct.valid.eq(present & ((part == _Part.SIGNS) | (part == _Part.RAW))),
        ]
        with m.If(moved):
            m.d.sync += [fresh.eq(0), part_now.eq(part), count.eq(count + 1)]
            with m.If(part_ends):
                m.d.sync += [part_now.eq(part_next), count.eq(0)]
                # A chunk ends where the next planes follow something other than a codebook.
                with m.If((part != _Part.CODEBOOK) & (part_next == _Part.PLANES)):
                    m.d.sync += chunk.eq(chunk + 1)
                with m.If(layer_ends):
                    m.d.sync += [fresh.eq(1), chunk.eq(0)]
        self._count_transfer(m, part == _Part.CODEBOOK, moved, region_ends)
        return m

    def _count_transfer(
        self, m: Module, in_codebook: Value, moved: Value, region_ends: Value
    ) -> None:
        """Count beats and bursts; keep errors of the layer and of its (maybe kept) codebook."""
        layer, beat = self.layer.payload, self.beats.payload
        beats = Signal(32)
        bursts = Signal(32)
        layer_error = Signal()
        book_error = Signal()
        # A region ends with a burst. If the memory disagrees, it lost or added a beat.
        fault = Signal()
        m.d.comb += [
            fault.eq(beat.error | (region_ends & ~beat.last)),
            self.transfer.valid.eq(self.layer.ready),
            self.transfer.p.error.eq(layer_error | fault | (book_error & ~layer.raw)),
            self.transfer.p.beats.eq(beats + 1),
            self.transfer.p.bursts.eq(bursts + beat.last),
        ]
        with m.If(moved):
            m.d.sync += [beats.eq(self.transfer.p.beats), bursts.eq(self.transfer.p.bursts)]
            with m.If(in_codebook):
                # The first beat of a new book forgets the errors of the old one.
                m.d.sync += book_error.eq(fault | (book_error & (beats != 0)))
            with m.Else():
                m.d.sync += layer_error.eq(layer_error | fault)
            with m.If(self.layer.ready):
                m.d.sync += [beats.eq(0), bursts.eq(0), layer_error.eq(0)]
