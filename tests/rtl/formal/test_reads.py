"""Read DMA: room is kept for every beat; bursts cover regions exactly and stay in a page."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Mux, Signal

from rtl.bus.channel import ReadChannel
from rtl.bus.dma import ReadDMA
from rtl.config import StreamerConfig
from tests.rtl.formal.prove import Spec, prove
from vq.container import GRANULE_BYTES, PAGE_BYTES

#: Shortest bursts and smallest buffer, and longest bursts.
CONFIGS = [
    StreamerConfig(bus_bits=64, burst_bytes=64, fifo_bytes=128),
    StreamerConfig(bus_bits=128, burst_bytes=4096, fifo_bytes=8192),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["short", "long"])
def test_channel(config: StreamerConfig) -> None:
    spec = Spec(channel := ReadChannel(config))
    m, region, burst, beats = spec.m, channel.region, channel.burst, channel.beats
    spec.stream(burst, Assert)
    spec.stream(beats, Assert)
    room = config.fifo_beats
    accepted = region.valid & region.ready
    issued = burst.valid & burst.ready
    burst_beats = burst.p.granules * config.granule_beats

    # The memory sends only what it was asked for; then the buffer has room for it.
    due = Signal(range(room + 1))
    m.d.sync += due.eq(due + Mux(issued, burst_beats, 0) - channel.arrived)
    fifo_level = spec.inside("fifo.level")
    m.d.comb += [
        Assume(~channel.arrived | (due != 0)),
        Assert(~channel.arrived | spec.inside("fifo.w_rdy")),
        Assert(spec.inside("free_beats") + fifo_level + due == room),
    ]

    # Bursts are consecutive, and the next region is not taken before they add up to this one.
    left, following = Signal(32), Signal(58)
    with m.If(accepted):
        m.d.sync += [left.eq(region.p.granules), following.eq(region.p.address)]
    with m.Elif(issued):
        m.d.sync += [
            left.eq(left - burst.p.granules),
            following.eq(following + burst.p.granules),
        ]
    page = PAGE_BYTES // GRANULE_BYTES
    m.d.comb += [
        Assert(left == spec.inside("remaining")),
        Assert(following == spec.inside("address")),
        Assert(~accepted | (left == 0)),
        Assert((left != 0) | region.ready),
    ]
    with m.If(burst.valid):
        m.d.comb += [
            Assert(burst.p.address == following),
            Assert((burst.p.granules != 0) & (burst.p.granules <= left)),
            Assert((burst.p.address % page) + burst.p.granules <= page),
        ]
    prove(spec, depth=3)


def test_beats_in_order() -> None:
    """Any one beat is watched: it leaves right behind those that were there before it."""
    # Data are passed on only, so two bits stand for a beat of 512.
    config = SimpleNamespace(
        bus_bits=2, bus_bytes=64, granule_beats=1, burst_bytes=64, fifo_bytes=256, fifo_beats=4
    )
    spec = Spec(channel := ReadChannel(config))
    m, beats, arrived = spec.m, channel.beats, channel.arrived
    room = config.fifo_beats
    issued = channel.burst.valid & channel.burst.ready
    popped = beats.valid & beats.ready
    due, level = Signal(range(room + 1)), Signal(range(room + 1))
    m.d.sync += [due.eq(due + issued - arrived), level.eq(level + arrived - popped)]
    m.d.comb += [
        Assume(~arrived | (due != 0)),
        Assert(level == spec.inside("fifo.level")),
        Assert(spec.inside("free_beats") + level + due == room),
    ]
    # The oldest beat is in the buffer's output register, the others are in its memory.
    watching, ahead, value = Signal(), Signal(range(room + 1)), Signal.like(beats.payload)
    where = (spec.inside("fifo.consume") + ahead - beats.valid) % room
    with m.If(watching):
        m.d.comb += Assert(ahead < level)
        with m.If((ahead == 0) & beats.valid):
            m.d.comb += Assert(beats.payload == value)
        with m.Else():
            m.d.comb += Assert(spec.stored("fifo.storage", where) == value.as_value())
        with m.If(popped):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += watching.eq(0)
    with m.Elif(arrived & spec.any_now(1)):
        m.d.sync += [watching.eq(1), ahead.eq(level - popped), value.eq(channel.beat)]
    prove(spec, depth=2)


def test_requests_hold() -> None:
    """AR of the whole DMA, and what it asks for stays in a page of 4 KiB."""
    config = StreamerConfig(bus_bits=64, burst_bytes=512, fifo_bytes=1024, address_bits=32)
    spec = Spec(dma := ReadDMA(config, [1024, 512, 512]))
    m, axi = spec.m, dma.m_axi
    spec.holds(
        axi.arvalid, axi.arready, Cat(axi.araddr, axi.arlen, axi.arsize, axi.arburst.as_value())
    )
    with m.If(axi.arvalid):
        m.d.comb += Assert(axi.araddr % PAGE_BYTES + (axi.arlen + 1) * 8 <= PAGE_BYTES)
    prove(spec, depth=3)
