"""Write DMA: AW and W keep the rule of streams; each address gets its beats, none is early."""

import pytest
from amaranth.hdl import Assert, Assume, Cat, Mux, Signal

from rtl.bus.write import WriteDMA
from tests.rtl.formal.prove import Spec, prove
from vq.container import GRANULE_BYTES, PAGE_BYTES


@pytest.mark.parametrize(("data_bits", "burst_bytes"), [(64, 64), (128, 4096)])
def test_write(data_bits: int, burst_bytes: int) -> None:
    spec = Spec(dma := WriteDMA(address_bits=32, data_bits=data_bits, burst_bytes=burst_bytes))
    m, axi, region = spec.m, dma.m_axi, dma.region
    spec.stream(region, Assume)
    spec.stream(dma.beats, Assume)
    spec.holds(axi.awvalid, axi.awready, Cat(axi.awaddr, axi.awlen, axi.awsize))
    spec.holds(axi.wvalid, axi.wready, Cat(axi.wdata, axi.wstrb, axi.wlast))
    bus_bytes = data_bits // 8
    requested, written = axi.awvalid & axi.awready, axi.wvalid & axi.wready
    with m.If(axi.awvalid):
        m.d.comb += Assert(axi.awaddr % PAGE_BYTES + (axi.awlen + 1) * bus_bytes <= PAGE_BYTES)

    # Beats of accepted addresses less beats written. A beat may pass its address only while
    # that is offered.
    due = Signal(range(-1024, 1024))
    offered = Mux(axi.awvalid, axi.awlen + 1, 0)
    m.d.sync += due.eq(due + Mux(requested, axi.awlen + 1, 0) - written)
    beats_left = spec.inside("beats_left")
    m.d.comb += [
        Assert(due + offered == beats_left + axi.wvalid),
        Assert(~axi.wvalid | (due + offered > 0)),
        Assert(beats_left <= burst_bytes // bus_bytes),
    ]

    # Responses come for what was written, so their number is known.
    open_bursts = Signal(9)
    opens = spec.inside("opens")
    m.d.sync += open_bursts.eq(open_bursts + opens - axi.bvalid)
    m.d.comb += [Assume(~axi.bvalid | (open_bursts != 0)), Assert(dma.pending == open_bursts)]

    # Bursts are consecutive; the region is done when they add up to it.
    announced = Signal(32)
    granules = spec.inside("granules")
    with m.If(region.valid & region.ready):
        m.d.comb += Assert(announced == region.p.granules)
        m.d.sync += announced.eq(0)
    with m.Elif(opens):
        m.d.sync += announced.eq(announced + granules)
    with m.If(region.valid):
        m.d.comb += Assert(announced <= region.p.granules)
    with m.Else():
        m.d.comb += Assert(announced == 0)
    was_opened, at, size = Signal(), Signal(32), Signal(9)
    m.d.sync += [
        was_opened.eq(opens),
        at.eq((region.p.address + announced) * GRANULE_BYTES),
        size.eq(granules * GRANULE_BYTES // bus_bytes),
    ]
    m.d.comb += Assert(announced == spec.inside("done"))
    with m.If(was_opened):
        m.d.comb += Assert(axi.awvalid & (axi.awaddr == at) & (axi.awlen + 1 == size))
    prove(spec, depth=3)
