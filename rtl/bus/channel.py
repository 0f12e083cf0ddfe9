"""One channel of the read DMA: regions of memory in, bursts out, beats buffered."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.config import StreamerConfig
from vq.container import GRANULE_BYTES, PAGE_BYTES

__all__ = ["REGION", "ReadChannel", "beat_layout", "burst_layout"]

#: A region of memory, in granules of 64 bytes; at least one granule. A DMA that is told so takes
#: smaller units for granules.
REGION = data.StructLayout({"granules": 32, "address": 58})


def burst_layout(config: StreamerConfig, unit_bytes: int) -> data.StructLayout:
    """A part of a region that one AXI burst reads, in the same units."""
    most = PAGE_BYTES if unit_bytes == GRANULE_BYTES else config.burst_bytes
    return data.StructLayout({"granules": (most // unit_bytes).bit_length(), "address": 58})


def beat_layout(config: StreamerConfig) -> data.StructLayout:
    """One beat as the bus delivered it."""
    return data.StructLayout({"data": config.bus_bits, "error": 1, "last": 1})


class ReadChannel(wiring.Component):
    """Cut regions into bursts, and offer a burst only when the buffer has room for all its beats.

    Bursts end at multiples of their largest length, so none crosses a 4 KiB boundary. The next
    region follows one cycle after the last burst of the one before.

    Parameters
    ----------
    config : StreamerConfig
    fifo_bytes : int, optional
        Buffer, at least ``config.burst_bytes``; ``config.fifo_bytes`` if left out.
    unit_bytes : int
        Of what regions call a granule: whole beats.

    Members
    -------
    region : In(stream.Signature(REGION))
        What to read. A region of zero granules is dropped.
    burst : Out(stream.Signature(burst_layout(config, unit_bytes)))
        What to ask the memory for.
    arrived : In(1)
        ``beat`` came from the memory. Only for bursts of this channel: there is no check for
        room, because room was kept.
    beat : In(beat_layout(config))
        The beat.
    beats : Out(stream.Signature(beat_layout(config)))
        All beats, in order.
    """

    def __init__(
        self,
        config: StreamerConfig,
        fifo_bytes: int | None = None,
        unit_bytes: int = GRANULE_BYTES,
    ) -> None:
        self._config, self._unit_bytes = config, unit_bytes
        self._fifo_beats = (fifo_bytes or config.fifo_bytes) // config.bus_bytes
        super().__init__(
            {
                "region": In(stream.Signature(REGION)),
                "burst": Out(stream.Signature(burst_layout(config, unit_bytes))),
                "arrived": In(1),
                "beat": In(beat_layout(config)),
                "beats": Out(stream.Signature(beat_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        burst_granules = config.burst_bytes // self._unit_bytes
        unit_beats = self._unit_bytes // config.bus_bytes
        m = Module()
        # The buffered FIFO keeps one entry in its output register, beside the memory.
        m.submodules.fifo = fifo = SyncFIFOBuffered(
            width=beat_layout(config).size, depth=self._fifo_beats + 1
        )
        beat_shift = (unit_beats - 1).bit_length()
        address = Signal(58)
        remaining = Signal(32)
        free_beats = Signal(range(self._fifo_beats + 1), init=self._fifo_beats)

        to_boundary = burst_granules - (address & (burst_granules - 1))
        granules = Mux(remaining < to_boundary, remaining, to_boundary)
        burst_beats = Signal(range(burst_granules * unit_beats + 1))
        issued = self.burst.valid & self.burst.ready
        m.d.comb += [
            burst_beats.eq(self.burst.p.granules << beat_shift),
            self.burst.p.granules.eq(granules),
            self.burst.p.address.eq(address),
            self.burst.valid.eq((remaining != 0) & (free_beats >= burst_beats)),
            self.region.ready.eq(remaining == 0),
            fifo.w_data.eq(self.beat),
            fifo.w_en.eq(self.arrived),
            self.beats.payload.eq(fifo.r_data),
            self.beats.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.beats.ready),
        ]
        with m.If(self.region.valid & self.region.ready):
            m.d.sync += [
                address.eq(self.region.p.address),
                remaining.eq(self.region.p.granules),
            ]
        with m.If(issued):
            m.d.sync += [
                address.eq(address + self.burst.p.granules),
                remaining.eq(remaining - self.burst.p.granules),
            ]
        popped = self.beats.valid & self.beats.ready
        m.d.sync += free_beats.eq(free_beats - Mux(issued, burst_beats, 0) + popped)
        return m
