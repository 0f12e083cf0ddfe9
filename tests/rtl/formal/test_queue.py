"""StreamQueue: keeps the rule of streams, first in first out, nothing lost or doubled."""

import pytest
from amaranth.hdl import Assert, Signal

from rtl.bus.queue import StreamQueue
from tests.rtl.formal.prove import Spec, prove

DEPTHS = [2, 3, 4]


@pytest.mark.parametrize("depth", DEPTHS)
def test_offers_hold(depth: int) -> None:
    spec = Spec(queue := StreamQueue(2, depth))
    spec.stream(queue.get, Assert)
    prove(spec, depth=3)


@pytest.mark.parametrize("depth", DEPTHS)
def test_first_in_first_out(depth: int) -> None:
    spec = Spec(queue := StreamQueue(2, depth))
    m, put, get = spec.m, queue.put, queue.get
    pushed, popped = put.valid & put.ready, get.valid & get.ready
    level = Signal(range(depth + 1))
    m.d.sync += level.eq(level + pushed - popped)
    m.d.comb += [
        Assert(put.ready == (level != depth)),
        Assert(get.valid == (level != 0)),
        Assert(level == spec.inside("fifo.level")),
    ]

    # Any one entry is watched: it must leave right behind those that were there before it.
    watching, ahead, value = Signal(), Signal(range(depth + 1)), Signal(2)
    where = (spec.inside("fifo.consume") + ahead) % depth
    with m.If(watching):
        m.d.comb += [Assert(ahead < level), Assert(spec.stored("fifo.storage", where) == value)]
        with m.If(popped):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.comb += Assert(get.payload == value)
                m.d.sync += watching.eq(0)
    with m.Elif(pushed & spec.any_now(1)):
        m.d.sync += [watching.eq(1), ahead.eq(level - popped), value.eq(put.payload)]
    prove(spec, depth=2)
