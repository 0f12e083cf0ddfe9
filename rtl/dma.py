"""Read DMA: two channels, codebooks and streams, on one AXI4 read port."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.axi import Burst, ReadSignature
from rtl.channel import REGION, ReadChannel, beat_layout
from rtl.config import StreamerConfig
from rtl.queue import StreamQueue
from vq.container import GRANULE_BYTES

__all__ = ["ReadDMA"]


class ReadDMA(wiring.Component):
    """Fetch codebooks and streams ahead of use.

    Each channel reads its regions in order and has its own buffer, so a codebook that waits for
    its RAM never holds up a stream, nor the other way round. Codebook bursts go first: they are
    few, and a layer cannot start without its codebook. A burst is only requested when its channel
    has room for all of its beats: ``rready`` is constant one and the memory never waits.

    Parameters
    ----------
    config : StreamerConfig

    Members
    -------
    codebook_region, stream_region : In(stream.Signature(REGION))
        What to read.
    m_axi : Out(ReadSignature)
        To the memory.
    codebook, beats : Out(stream.Signature(beat_layout(config)))
        Beats of codebooks and of streams. ``error`` marks a slave or decode error, ``last`` the
        end of a burst.
    """

    def __init__(self, config: StreamerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "codebook_region": In(stream.Signature(REGION)),
                "stream_region": In(stream.Signature(REGION)),
                "m_axi": Out(
                    ReadSignature(address_bits=config.address_bits, data_bits=config.bus_bits)
                ),
                "codebook": Out(stream.Signature(beat_layout(config))),
                "beats": Out(stream.Signature(beat_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        m.submodules.codebook_channel = books = ReadChannel(config)
        m.submodules.stream_channel = streams = ReadChannel(config)
        # Whose burst each outstanding one is; data return in the order of the requests.
        m.submodules.owners = owners = StreamQueue(1, config.outstanding_bursts)
        connect(m, flipped(self.codebook_region), books.region)
        connect(m, flipped(self.stream_region), streams.region)
        connect(m, books.beats, flipped(self.codebook))
        connect(m, streams.beats, flipped(self.beats))

        axi = self.m_axi
        granule_shift = (GRANULE_BYTES - 1).bit_length()
        beat_shift = (config.granule_beats - 1).bit_length()
        free = Signal()
        issue = Signal()
        burst = Mux(books.burst.valid, books.burst.payload, streams.burst.payload)
        chosen = Signal(books.burst.payload.shape())
        m.d.comb += [
            free.eq((~axi.arvalid | axi.arready) & owners.put.ready),
            issue.eq(free & (books.burst.valid | streams.burst.valid)),
            chosen.eq(burst),
            books.burst.ready.eq(free),
            streams.burst.ready.eq(free & ~books.burst.valid),
            owners.put.payload.eq(books.burst.valid),
            owners.put.valid.eq(issue),
            owners.get.ready.eq(axi.rvalid & axi.rlast),
            axi.arsize.eq((config.bus_bytes - 1).bit_length()),
            axi.arburst.eq(Burst.INCR),
            axi.arcache.eq(0b0011),
            axi.arprot.eq(0),
            axi.rready.eq(1),
            books.arrived.eq(axi.rvalid & owners.get.payload),
            streams.arrived.eq(axi.rvalid & ~owners.get.payload),
        ]
        for channel in (books, streams):
            m.d.comb += [
                channel.beat.data.eq(axi.rdata),
                channel.beat.error.eq(axi.rresp[1]),
                channel.beat.last.eq(axi.rlast),
            ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.araddr.eq(chosen.address << granule_shift),
                axi.arlen.eq((chosen.granules << beat_shift) - 1),
            ]
        return m
