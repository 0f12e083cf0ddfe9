"""Read DMA: several channels on one AXI4 read port."""

from collections.abc import Sequence

from amaranth import Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.axi import Burst, ReadSignature
from rtl.bus.channel import REGION, ReadChannel, beat_layout
from rtl.bus.queue import StreamQueue
from rtl.config import StreamerConfig
from vq.container import GRANULE_BYTES

__all__ = ["ReadDMA"]


class ReadDMA(wiring.Component):
    """Fetch what each channel asks for, ahead of use.

    Each channel reads its regions in order and has its own buffer, so one that waits never holds
    up another. Bursts of earlier channels go first: the few and urgent come before the long
    streams. A burst is only requested when its channel has room for all of its beats: ``rready`` is
    constant one and the memory never waits.

    Parameters
    ----------
    config : StreamerConfig
    fifo_bytes : sequence of int
        Buffer of each channel, at least ``config.burst_bytes``; two channels or more.
    unit_bytes : int
        Of what regions call a granule: whole beats.

    Members
    -------
    regions : In(stream.Signature(REGION)).array(channels)
        What to read.
    m_axi : Out(ReadSignature)
        To the memory.
    beats : Out(stream.Signature(beat_layout(config))).array(channels)
        ``error`` marks a slave or decode error, ``last`` the end of a burst.
    """

    def __init__(
        self,
        config: StreamerConfig,
        fifo_bytes: Sequence[int],
        unit_bytes: int = GRANULE_BYTES,
    ) -> None:
        self._config, self._unit_bytes = config, unit_bytes
        self._fifo_bytes = tuple(fifo_bytes)
        channels = len(self._fifo_bytes)
        memory = ReadSignature(address_bits=config.address_bits, data_bits=config.bus_bits)
        super().__init__(
            {
                "regions": In(stream.Signature(REGION)).array(channels),
                "m_axi": Out(memory),
                "beats": Out(stream.Signature(beat_layout(config))).array(channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        channels = [ReadChannel(config, size, self._unit_bytes) for size in self._fifo_bytes]
        # Whose burst each outstanding one is; data return in the order of the requests.
        owner = range(len(channels))
        m.submodules.owners = owners = StreamQueue(
            (len(channels) - 1).bit_length(), config.outstanding_bursts
        )
        axi = self.m_axi
        granule_shift = (self._unit_bytes - 1).bit_length()
        beat_shift = (self._unit_bytes // config.bus_bytes - 1).bit_length()
        free = Signal()
        issue = Signal()
        chosen = Signal.like(channels[0].burst.payload)
        number = Signal(owner)
        m.d.comb += free.eq((~axi.arvalid | axi.arready) & owners.put.ready)
        waiting: Value = free
        for i, channel in enumerate(channels):
            m.submodules[f"channel_{i}"] = channel
            connect(m, flipped(self.regions[i]), channel.region)
            connect(m, channel.beats, flipped(self.beats[i]))
            m.d.comb += [
                channel.burst.ready.eq(waiting),
                channel.arrived.eq(axi.rvalid & (owners.get.payload == i)),
                channel.beat.data.eq(axi.rdata),
                channel.beat.error.eq(axi.rresp[1]),
                channel.beat.last.eq(axi.rlast),
            ]
            waiting = waiting & ~channel.burst.valid
        for i, channel in reversed(list(enumerate(channels))):
            with m.If(channel.burst.valid):
                m.d.comb += [chosen.eq(channel.burst.payload), number.eq(i), issue.eq(free)]

        m.d.comb += [
            owners.put.payload.eq(number),
            owners.put.valid.eq(issue),
            owners.get.ready.eq(axi.rvalid & axi.rlast),
            axi.arsize.eq((config.bus_bytes - 1).bit_length()),
            axi.arburst.eq(Burst.INCR),
            axi.arcache.eq(0b0011),
            axi.arprot.eq(0),
            axi.rready.eq(1),
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
