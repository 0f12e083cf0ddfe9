"""Read DMA: codebook and stream of each layer, in order, as one row of beats."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from rtl.axi import Burst, ReadSignature
from rtl.config import StreamerConfig
from vq.container import GRANULE_BYTES

__all__ = ["REQUEST", "ReadDMA", "beat_layout"]

#: What to read for one layer; addresses and lengths are in granules of 64 bytes.
REQUEST = data.StructLayout(
    {
        "codebook_granules": 16,  # 0: no codebook
        "stream_granules": 32,  # at least 1
        "codebook_address": 58,
        "stream_address": 58,
    }
)


def beat_layout(config: StreamerConfig) -> data.StructLayout:
    """One beat as the bus delivered it."""
    return data.StructLayout({"data": config.bus_bits, "error": 1, "last": 1})


class ReadDMA(wiring.Component):
    """Fetch regions of memory ahead of use.

    Each request becomes bursts for its codebook, then for its stream. The next request follows
    without a pause, so the bus does not idle between layers. A burst is only requested when the
    buffer has room for all of its beats: ``rready`` is constant one and the memory never waits.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    request : In(stream.Signature(REQUEST))
        What to read. ``stream_granules`` must not be zero, or the request is never finished.
    m_axi : Out(ReadSignature)
        To the memory.
    beats : Out(stream.Signature(beat_layout(config)))
        Beats in the order of the requests. ``error`` marks a slave or decode error,
        ``last`` the end of a burst.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "request": In(stream.Signature(REQUEST)),
                "m_axi": Out(
                    ReadSignature(address_bits=config.address_bits, data_bits=config.bus_bits)
                ),
                "beats": Out(stream.Signature(beat_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        # The buffered FIFO keeps one entry in its output register, beside the memory.
        m.submodules.fifo = fifo = SyncFIFOBuffered(
            width=config.bus_bits + 2, depth=config.fifo_beats + 1
        )
        axi = self.m_axi
        granule_shift = (GRANULE_BYTES - 1).bit_length()
        beat_shift = (config.granule_beats - 1).bit_length()
        burst_granules = config.burst_bytes // GRANULE_BYTES

        address = Signal(config.address_bits - granule_shift)
        remaining = Signal(32)
        codebook_done = Signal()
        issue = Signal()
        free_beats = Signal(range(config.fifo_beats + 1), init=config.fifo_beats)
        outstanding = Signal(range(config.outstanding_bursts + 1))

        to_boundary = burst_granules - (address & (burst_granules - 1))
        granules = Signal(range(burst_granules + 1))
        burst_beats = Signal(range(burst_granules * config.granule_beats + 1))
        m.d.comb += [
            granules.eq(Mux(remaining < to_boundary, remaining, to_boundary)),
            burst_beats.eq(granules << beat_shift),
            issue.eq(
                (remaining != 0)
                & (free_beats >= burst_beats)
                & (outstanding != config.outstanding_bursts)
                & (~axi.arvalid | axi.arready)
            ),
            axi.arsize.eq((config.bus_bytes - 1).bit_length()),
            axi.arburst.eq(Burst.INCR),
            axi.arcache.eq(0b0011),
            axi.arprot.eq(0),
            axi.rready.eq(1),
        ]

        with m.If(remaining == 0):
            codebook_first = (self.request.p.codebook_granules != 0) & ~codebook_done
            with m.If(self.request.valid & codebook_first):
                m.d.sync += [
                    address.eq(self.request.p.codebook_address),
                    remaining.eq(self.request.p.codebook_granules),
                    codebook_done.eq(1),
                ]
            with m.Elif(self.request.valid):
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += [
                    address.eq(self.request.p.stream_address),
                    remaining.eq(self.request.p.stream_granules),
                    codebook_done.eq(0),
                ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(address << granule_shift),
                axi.arlen.eq(burst_beats - 1),
                address.eq(address + granules),
                remaining.eq(remaining - granules),
            ]

        popped = self.beats.valid & self.beats.ready
        ended = axi.rvalid & axi.rlast & (outstanding != 0)
        m.d.sync += [
            free_beats.eq(free_beats - Mux(issue, burst_beats, Const(0, 1)) + popped),
            outstanding.eq(outstanding + issue - ended),
        ]

        incoming = Signal(beat_layout(config))
        m.d.comb += [
            incoming.data.eq(axi.rdata),
            incoming.error.eq(axi.rresp[1]),
            incoming.last.eq(axi.rlast),
            fifo.w_data.eq(incoming),
            fifo.w_en.eq(axi.rvalid),
            self.beats.payload.eq(fifo.r_data),
            self.beats.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.beats.ready),
        ]
        return m
