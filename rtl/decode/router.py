"""Router: which part of a layer's stream each incoming beat belongs to."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.channel import beat_layout
from rtl.config import StreamerConfig
from rtl.descriptor import LAYER

__all__ = ["TRANSFER", "Router", "plane_layout"]

#: What the bus did for one stream or one codebook.
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
    PLANES = 0
    SIGNS = 1
    RAW = 2


class Router(wiring.Component):
    """Send each beat to the bit-planes or to the direct path (signs and int8).

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
        From the DMA's stream channel.
    planes : Out(stream.Signature(plane_layout(config)))
        Beats of an index part, with their place.
    direct : Out(stream.Signature(config.bus_bits))
        Beats of signs or of int8 weights. Each beat of signs makes at least one output beat: what
        is only padding is dropped.
    transfer : Out(stream.Signature(TRANSFER, always_ready=True))
        Given in the cycle of the layer's last beat; the receiver must have room.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "layer": In(stream.Signature(LAYER)),
                "beats": In(stream.Signature(beat_layout(config))),
                "planes": Out(stream.Signature(plane_layout(config))),
                "direct": Out(stream.Signature(config.bus_bits)),
                "transfer": Out(stream.Signature(TRANSFER, always_ready=True)),
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

        last_chunk = chunk == layer.chunks - 1
        # Parity signs of a last chunk may end in beats that no output beat uses.
        last_steps = Signal(5 + beat_shift)
        used_beats = Signal(5 + beat_shift)
        unused = Signal()
        m.d.comb += [
            last_steps.eq(layer.last_granules << beat_shift),
            used_beats.eq(last_steps - (last_steps >> layer.log2_d)),
        ]
        m.d.comb += part.eq(Mux(fresh, Mux(layer.raw, _Part.RAW, _Part.PLANES), part_now))

        target_ready = Signal()
        layer_ends = Signal()
        with m.Switch(part):
            with m.Case(_Part.PLANES):
                m.d.comb += [
                    granules.eq(layer.index_bits),
                    target_ready.eq(self.planes.ready),
                    part_next.eq(Mux(layer.signed, _Part.SIGNS, _Part.PLANES)),
                    layer_ends.eq(~layer.signed & last_chunk),
                ]
            with m.Case(_Part.SIGNS):
                m.d.comb += [
                    granules.eq(
                        Mux(
                            last_chunk,
                            layer.last_sign_granules,
                            (Const(1, 5) << layer.log2_d) - layer.parity,
                        )
                    ),
                    unused.eq(layer.parity & last_chunk & (count >= used_beats)),
                    target_ready.eq(self.direct.ready | unused),
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
        m.d.comb += [
            present.eq(self.beats.valid & self.layer.valid),
            moved.eq(present & target_ready),
            part_ends.eq(count == (granules << beat_shift) - 1),
            self.beats.ready.eq(self.layer.valid & target_ready),
            self.layer.ready.eq(moved & part_ends & layer_ends),
            self.planes.p.data.eq(beat.data),
            self.planes.p.plane.eq(count >> beat_shift),
            self.planes.p.word.eq(count & ((1 << beat_shift) - 1)),
            self.planes.p.last.eq(part_ends),
            self.planes.valid.eq(present & (part == _Part.PLANES)),
            self.direct.payload.eq(beat.data),
            self.direct.valid.eq(present & ~unused & ((part == _Part.SIGNS) | (part == _Part.RAW))),
        ]
        with m.If(moved):
            m.d.sync += [fresh.eq(0), part_now.eq(part), count.eq(count + 1)]
            with m.If(part_ends):
                m.d.sync += [part_now.eq(part_next), count.eq(0)]
                with m.If(part_next == _Part.PLANES):
                    m.d.sync += chunk.eq(chunk + 1)
                with m.If(layer_ends):
                    m.d.sync += [fresh.eq(1), chunk.eq(0)]

        beats = Signal(32)
        bursts = Signal(32)
        error = Signal()
        m.d.comb += [
            self.transfer.valid.eq(self.layer.ready),
            # A stream ends with a burst. If the memory disagrees, it lost or added a beat.
            self.transfer.p.error.eq(error | beat.error | (self.layer.ready & ~beat.last)),
            self.transfer.p.beats.eq(beats + 1),
            self.transfer.p.bursts.eq(bursts + beat.last),
        ]
        with m.If(moved):
            m.d.sync += [
                beats.eq(self.transfer.p.beats),
                bursts.eq(self.transfer.p.bursts),
                error.eq(self.transfer.p.error),
            ]
            with m.If(self.layer.ready):
                m.d.sync += [beats.eq(0), bursts.eq(0), error.eq(0)]
        return m
