"""Indices: no sub-vector is lost, doubled or moved between the bus and the lanes of the codebook.

Three proofs meet. The router gives every beat its place in its chunk; what the plane buffer gets
with a place can be read in its step of its chunk, in the right lane; the sequencer makes each step
of each chunk once, in order, before it lets the chunk go.
"""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Mux, Signal, Value
from amaranth.lib import stream

from rtl.config import StreamerConfig
from rtl.decode.planes import PlaneBuffer
from rtl.decode.router import Router
from rtl.decode.sequencer import Sequencer
from tests.rtl.formal.prove import Spec, prove

CONFIG = StreamerConfig(bus_bits=64, d_min=2, d_max=8, index_bits_max=5, tile_outputs=8)
W, WORDS, PLANES = CONFIG.bus_bits, CONFIG.granule_beats, CONFIG.index_bits_max

#: The plane buffer in small: 8 sub-vectors to a word, 16 to a chunk. Nothing in it is of a width.
NARROW = SimpleNamespace(bus_bits=8, granule_beats=2, d_min=2, d_max=4, banks=4, index_bits_max=2)


def assume_layer(spec: Spec, offer: stream.Interface) -> None:
    """What the checker of descriptors lets pass, and the decoder's queue of layers keeps."""
    layer = offer.payload
    spec.stream(offer, Assume)
    spec.m.d.comb += [
        Assume(layer.chunks != 0),
        Assume((layer.index_bits != 0) & (layer.index_bits <= PLANES)),
        Assume((layer.log2_d >= 1) & (layer.log2_d <= 3)),
        Assume((layer.last_granules != 0) & (layer.last_granules <= 1 << layer.log2_d)),
        Assume((layer.last_sign_granules != 0) & (layer.last_sign_granules <= layer.last_granules)),
        Assume(layer.stream_granules != 0),
        Assume(~layer.codes & ~layer.zeros),
        Assume(~layer.raw | ~(layer.signed | layer.parity)),
        Assume(~layer.parity | layer.signed),
    ]


def test_router_follows_the_format() -> None:
    spec = Spec(router := Router(CONFIG))
    m, layer, planes, direct = spec.m, router.layer.payload, router.planes, router.direct
    assume_layer(spec, router.layer)
    moved = router.beats.valid & router.beats.ready

    # A chunk is `index_bits` planes, then signs; int8 is one part.
    signs, at, chunk = Signal(), Signal(35), Signal(32)
    last_chunk = chunk == layer.chunks - 1
    sign_granules = Mux(last_chunk, layer.last_sign_granules, (1 << layer.log2_d) - layer.parity)
    granules = Mux(layer.raw, layer.stream_granules, Mux(signs, sign_granules, layer.index_bits))
    ends = at == granules * WORDS - 1
    chunk_ends = ends & (signs | ~layer.signed)
    layer_ends = Mux(layer.raw, ends, chunk_ends & last_chunk)
    with m.If(moved):
        m.d.sync += at.eq(at + 1)
        with m.If(ends):
            m.d.sync += [at.eq(0), signs.eq(layer.signed & ~signs)]
        with m.If(chunk_ends):
            m.d.sync += chunk.eq(chunk + 1)
        with m.If(layer_ends):
            m.d.sync += chunk.eq(0)

    is_plane = ~layer.raw & ~signs
    m.d.comb += [
        Assert(router.layer.ready == (moved & layer_ends)),
        Assert((planes.valid & planes.ready) == (moved & is_plane)),
        Assert(~(direct.valid & direct.ready) | (moved & ~is_plane)),
        # Only padding of parity signs is dropped.
        Assert(~(moved & ~is_plane) | direct.valid | (layer.parity & last_chunk)),
    ]
    with m.If(planes.valid):
        m.d.comb += [
            Assert(planes.p.plane * WORDS + planes.p.word == at),
            Assert(planes.p.last == ends),
            Assert(planes.p.data == router.beats.p.data),
        ]
    with m.If(direct.valid):
        m.d.comb += Assert(direct.payload == router.beats.p.data)

    # How the router's own counters stand to these.
    fresh, raw = spec.inside("fresh"), layer.raw & (at != 0)
    m.d.comb += [
        Assert(at == spec.inside("count")),
        Assert(chunk == spec.inside("chunk")),
        Assert(fresh == ((at == 0) & ~signs & (chunk == 0))),
        Assert(router.layer.valid | fresh),
        Assert(fresh | (spec.inside("part_now") == Cat(signs, raw))),
        Assert((at == 0) | (at < granules * WORDS)),
        Assert((chunk == 0) | (chunk < layer.chunks)),
        Assert(~signs | layer.signed),
        Assert(~layer.raw | ((chunk == 0) & ~signs)),
    ]
    prove(spec, depth=2)


@pytest.mark.parametrize("d", [2, 4])
def test_what_is_stored_is_read(d: int) -> None:
    """Any sub-vector of any chunk is watched, from the beats with its bits to its lane."""
    W, WORDS, PLANES = NARROW.bus_bits, NARROW.granule_beats, NARROW.index_bits_max
    spec = Spec(buffer := PlaneBuffer(NARROW))
    m, put = spec.m, buffer.planes
    stored = put.valid & put.ready

    # Chunks come as the router gives them.
    at, planes = Signal(range(PLANES * WORDS)), Signal(4, init=1)
    next_planes = spec.any_now(4)
    ends = at == planes * WORDS - 1
    m.d.comb += [
        Assume(put.p.plane * WORDS + put.p.word == at),
        Assume(put.p.last == ends),
        Assume(~put.valid | (planes != 0)),
        Assert(planes <= PLANES),
        Assert((at == 0) | (at < planes * WORDS)),
    ]
    with m.If(stored):
        m.d.sync += at.eq(Mux(ends, 0, at + 1))
    with m.If((at == 0) & ~stored):
        m.d.sync += planes.eq(Mux(next_planes > PLANES, 1, next_planes))

    number = spec.any_ever(range(W * WORDS), "number")
    word, column = number[W.bit_length() - 1 :], number[: W.bit_length() - 1]
    filling, full, behind, half = (Signal(name=n) for n in ("filling", "full", "behind", "half"))
    have, index = Signal(PLANES), Signal(PLANES)
    its_planes = Signal(4)
    starts = stored & (at == 0) & ~filling & ~full & spec.any_now(1)
    halves = spec.inside("full_halves")
    with m.If(starts):
        m.d.sync += [
            filling.eq(1),
            half.eq(spec.inside("write_half")),
            its_planes.eq(planes),
            have.eq(0),
            index.eq(0),
        ]
    with m.If(starts | (filling & stored)):
        for p in range(PLANES):
            with m.If(at == Cat(word, Const(p, 2))):
                m.d.sync += [have[p].eq(1), index[p].eq(put.p.data.bit_select(column, 1))]
        with m.If(ends):
            m.d.sync += [filling.eq(0), full.eq(1), behind.eq(halves > buffer.release)]
    with m.If(full & buffer.release):
        m.d.sync += [behind.eq(0), full.eq(behind)]

    # Its chunk is read with its own d and b, in any order of steps.
    ours = full & ~behind
    step, lane = number * d // W, number % (W // d)
    expects, expected, in_lane = Signal(), Signal(PLANES), Signal(range(W // d))
    m.d.comb += [
        Assume(buffer.log2_d == d.bit_length() - 1),
        Assume(~buffer.release | buffer.filled),
        Assume(~ours | (buffer.index_bits == its_planes)),
        Assert(~ours | buffer.filled),
    ]
    with m.If(buffer.enable):
        m.d.sync += [expects.eq(ours & (buffer.step == step)), expected.eq(index)]
        m.d.sync += in_lane.eq(lane)
    with m.If(expects):
        lanes = Value.cast(buffer.lanes)
        m.d.comb += Assert(lanes.word_select(in_lane, PLANES) == expected)

    # What the buffer holds meanwhile.
    read_half, write_half = spec.inside("read_half"), spec.inside("write_half")
    m.d.comb += [
        Assert(halves <= 2),
        Assert((halves == 1) == (read_half != write_half)),
        Assert(~(filling & full)),
        Assert(~(filling | full) | ((its_planes != 0) & (its_planes <= PLANES))),
        Assert(~full | ((half == (read_half ^ behind)) & (halves > behind))),
    ]
    with m.If(filling):
        m.d.comb += [
            Assert((half == write_half) & (at != 0)),
            Assert(its_planes == planes),
        ]
    for p in range(PLANES):
        row = spec.stored(f"plane_{p}", Cat(word, half))
        m.d.comb += Assert(have[p] | ~index[p])
        with m.If((filling | full) & have[p]):
            m.d.comb += Assert(row.bit_select(column, 1) == index[p])
        with m.If(filling):
            m.d.comb += Assert(have[p] == (at > Cat(word, Const(p, 2))))
        with m.If(full):
            m.d.comb += Assert(have[p] == (p < its_planes))
    prove(spec, depth=2)


def test_steps_follow_the_format() -> None:
    spec = Spec(sequencer := Sequencer(CONFIG))
    m, layer = spec.m, sequencer.layer.payload
    assume_layer(spec, sequencer.layer)
    count, chunk = Signal(35), Signal(32)
    last_chunk = chunk == layer.chunks - 1
    granules = Mux(
        layer.raw,
        layer.stream_granules,
        Mux(last_chunk, layer.last_granules, 1 << layer.log2_d),
    )
    start = sequencer.start
    ends = count == granules * WORDS - 1
    layer_ends = ends & (layer.raw | last_chunk)
    with m.If(start):
        m.d.sync += count.eq(count + 1)
        with m.If(ends):
            m.d.sync += [count.eq(0), chunk.eq(chunk + 1)]
        with m.If(layer_ends):
            m.d.sync += chunk.eq(0)
        m.d.comb += [
            Assert(sequencer.enable & sequencer.slot.valid & sequencer.layer.valid),
            Assert(layer.raw | sequencer.filled),
            Assert(sequencer.step == count[: len(sequencer.step)]),
            Assert(sequencer.slot.log2_d == layer.log2_d),
            Assert(sequencer.slot.raw == layer.raw),
            Assert(sequencer.slot.signed == layer.signed),
            Assert(sequencer.slot.last == layer_ends),
        ]
    m.d.comb += [
        Assert(sequencer.release == (start & ends & ~layer.raw)),
        Assert(sequencer.layer.ready == (start & layer_ends)),
        Assert(count == spec.inside("count")),
        Assert(chunk == spec.inside("chunk")),
        Assert(sequencer.layer.valid | ((count == 0) & (chunk == 0))),
        Assert((count == 0) | (count < granules * WORDS)),
        Assert((chunk == 0) | (chunk < layer.chunks)),
        Assert(~layer.raw | (chunk == 0)),
    ]
    prove(spec, depth=2)
