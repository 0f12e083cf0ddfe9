"""Write DMA: a region of memory is written from a stream of beats, burst by burst."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.axi import Burst
from rtl.bus.channel import REGION
from vq.container import GRANULE_BYTES

__all__ = ["WriteDMA", "WriteSignature"]


class WriteSignature(wiring.Signature):
    """Write address (AW), write data (W) and write response (B) channels of AXI4, from the master.

    Parameters
    ----------
    address_bits : int
        Width of a byte address.
    data_bits : int
        Width of the data bus, a power of two.

    Members
    -------
    awid, awvalid, awready, awaddr, awlen, awsize, awburst, awcache, awprot
        As the read address channel.
    wvalid : Out(1)
        A beat is offered. Held with all other ``w`` signals until ``wready``.
    wready : In(1)
    wdata : Out(data_bits)
    wstrb : Out(data_bits / 8)
        Always all ones: only whole granules are written.
    wlast : Out(1)
        Last beat of its burst.
    bid : In(1)
        Ignored.
    bvalid : In(1)
        A burst has been written.
    bready : Out(1)
        Always 1.
    bresp : In(2)
        2 and 3 are errors.
    """

    def __init__(self, *, address_bits: int, data_bits: int) -> None:
        self.address_bits = address_bits
        self.data_bits = data_bits
        super().__init__(
            {
                "awid": Out(1),
                "awvalid": Out(1),
                "awready": In(1),
                "awaddr": Out(address_bits),
                "awlen": Out(8),
                "awsize": Out(3),
                "awburst": Out(Burst),
                "awcache": Out(4),
                "awprot": Out(3),
                "wvalid": Out(1),
                "wready": In(1),
                "wdata": Out(data_bits),
                "wstrb": Out(data_bits // 8),
                "wlast": Out(1),
                "bid": In(1),
                "bvalid": In(1),
                "bready": Out(1),
                "bresp": In(2),
            }
        )


class WriteDMA(wiring.Component):
    """Cut regions into aligned bursts and write beats to them.

    A burst is announced with its first beat at hand, so a slow producer does not hold the bus
    with an open burst of which nothing is known. Data never pass their address: W starts in the
    cycle after AW is accepted or offered, never before it is offered.

    Parameters
    ----------
    address_bits, data_bits : int
    burst_bytes : int
        Longest burst, a power of two of 64 to 4096 bytes and at most 256 beats.
    unit_bytes : int
        Of what regions call a granule: whole beats.

    Members
    -------
    region : In(stream.Signature(REGION))
        Taken with the last beat's acceptance.
    beats : In(stream.Signature(data_bits))
    m_axi : Out(WriteSignature)
    pending : Out(8)
        Bursts without a response. No more are announced at 255.
    error : Out(1)
        A response was an error in this cycle.
    beats_written, bursts_written : Out(1)
        One was transferred in this cycle.
    """

    def __init__(
        self,
        *,
        address_bits: int,
        data_bits: int,
        burst_bytes: int,
        unit_bytes: int = GRANULE_BYTES,
    ) -> None:
        self._address_bits, self._data_bits = address_bits, data_bits
        self._unit_bytes = unit_bytes
        self._burst_granules = burst_bytes // unit_bytes
        self._signature = WriteSignature(address_bits=address_bits, data_bits=data_bits)
        super().__init__(
            {
                "region": In(stream.Signature(REGION)),
                "beats": In(stream.Signature(data_bits)),
                "m_axi": Out(self._signature),
                "pending": Out(8),
                "error": Out(1),
                "beats_written": Out(1),
                "bursts_written": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, region = self.m_axi, self.region.payload
        granule_beats = 8 * self._unit_bytes // self._data_bits
        beat_shift = (granule_beats - 1).bit_length()

        done = Signal(32)  # granules of the region that are announced
        beats_left = Signal(9)  # of the burst that is open
        address = Signal(58)
        remaining = Signal(32)
        m.d.comb += [address.eq(region.address + done), remaining.eq(region.granules - done)]
        to_boundary = self._burst_granules - (address & (self._burst_granules - 1))
        granules = Signal(range(self._burst_granules + 1))
        m.d.comb += granules.eq(Mux(remaining < to_boundary, remaining, to_boundary))

        opens = Signal()
        closes = Signal()
        w_free = ~axi.wvalid | axi.wready
        last_beat = beats_left == 1
        m.d.comb += [
            opens.eq(
                self.region.valid
                & self.beats.valid
                & (beats_left == 0)
                & (remaining != 0)
                & (~axi.awvalid | axi.awready)
                & (self.pending != 255)
            ),
            self.beats.ready.eq((beats_left != 0) & w_free),
            closes.eq(self.beats.valid & self.beats.ready & last_beat),
            self.region.ready.eq(closes & (remaining == 0)),
            axi.awsize.eq((self._data_bits // 8 - 1).bit_length()),
            axi.awburst.eq(Burst.INCR),
            axi.awcache.eq(0b0011),
            axi.awprot.eq(0),
            axi.wstrb.eq(-1),
            axi.bready.eq(1),
            self.error.eq(axi.bvalid & axi.bresp[1]),
            self.beats_written.eq(axi.wvalid & axi.wready),
            self.bursts_written.eq(axi.awvalid & axi.awready),
        ]
        m.d.sync += self.pending.eq(self.pending + opens - axi.bvalid)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(opens):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(address << (self._unit_bytes - 1).bit_length()),
                axi.awlen.eq((granules << beat_shift) - 1),
                beats_left.eq(granules << beat_shift),
                done.eq(done + granules),
            ]
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(self.beats.valid & self.beats.ready):
            m.d.sync += [
                axi.wvalid.eq(1),
                axi.wdata.eq(self.beats.payload),
                axi.wlast.eq(last_beat),
                beats_left.eq(beats_left - 1),
            ]
        with m.If(self.region.ready):
            m.d.sync += done.eq(0)
        return m
