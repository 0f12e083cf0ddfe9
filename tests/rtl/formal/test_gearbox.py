"""Gearbox: keeps the rule of streams; all parts leave, in order."""

import pytest
from amaranth.hdl import Assert, Assume, Signal

from rtl.bus.gearbox import Gearbox
from tests.rtl.formal.prove import Spec, prove

WIDTHS = [(4, 16), (16, 4), (8, 8), (8, 16)]


@pytest.mark.parametrize(("put_bits", "get_bits"), WIDTHS)
def test_offers_hold(put_bits: int, get_bits: int) -> None:
    spec = Spec(box := Gearbox(put_bits, get_bits))
    spec.stream(box.put, Assume)
    spec.stream(box.get, Assert)
    prove(spec, depth=3)


@pytest.mark.parametrize(("put_bits", "get_bits"), WIDTHS)
def test_parts_leave_in_order(put_bits: int, get_bits: int) -> None:
    spec = Spec(box := Gearbox(put_bits, get_bits))
    m, put, get = spec.m, box.put, box.get
    spec.stream(put, Assume)
    put_now, get_now = put.valid & put.ready, get.valid & get.ready
    # A cycle in which nothing moves changes nothing; without it, parts leave in a bounded time.
    m.d.comb += Assume(put_now | get_now)

    narrow = min(put_bits, get_bits)
    parts = max(put_bits, get_bits) // narrow
    place = Signal(range(max(2, parts)))  # in the wide word, of the narrow one that moves next
    ends = place == parts - 1
    if parts > 1:
        m.d.comb += Assert(place == spec.inside("step"))
    if put_bits >= get_bits:
        with m.If(get_now):
            m.d.sync += place.eq(place + 1 if parts > 1 else 0)
        m.d.comb += [
            Assert(put_now == (get_now & ends)),
            Assert(~get.valid | (get.payload == put.payload.word_select(place, narrow))),
        ]
    else:
        # Any one word is watched until the wide word that it is a part of has left.
        watching, at, value = Signal(), Signal.like(place), Signal(narrow)
        with m.If(put_now):
            m.d.sync += place.eq(place + 1)
        m.d.comb += Assert(get_now == (put_now & ends))
        chosen = put_now & ~watching & spec.any_now(1)
        with m.If(chosen):
            m.d.sync += [watching.eq(1), at.eq(place), value.eq(put.payload)]
            with m.If(get_now):
                m.d.comb += Assert(get.payload.word_select(place, narrow) == put.payload)
        with m.If(get_now):
            m.d.sync += watching.eq(0)
            with m.If(watching):
                m.d.comb += Assert(get.payload.word_select(at, narrow) == value)
        m.d.comb += Assert(~watching | (at < place))
    prove(spec, depth=2 * parts + 2)
