"""Any layer survives the file, and a second reader that shares no code agrees about it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.container import ContainerError, Geometry, Layer, codec, open_container, write_container

from .naive import NaiveFile
from .samples import PROPERTY, Sample, coded, grouped, int8, samples


def check(path, sample: Sample) -> None:
    with open_container(path) as file:
        assert np.array_equal(file.integers(sample.name), sample.integers)
        weight = file.weight(sample.name)
        assert weight.dtype == np.float32
        assert weight.shape == sample.weight.shape
        assert weight.tobytes() == sample.weight.tobytes()
        stream = file.stream_order(sample.name)
    naive = NaiveFile(path.read_bytes())
    assert naive.integers[sample.name] == sample.integers.reshape(-1).tolist()
    assert naive.weights[sample.name] == weight.tobytes()
    if not sample.layer.geometry.group:  # the naive reader's stream is before the zeros
        assert naive.stream[sample.name] == stream.tolist()


@PROPERTY
@given(samples())
def test_any_layer_comes_back_bit_for_bit(scratch, sample: Sample):
    path = scratch / "layer.vq.safetensors"
    write_container(path, [sample.layer])
    check(path, sample)


@pytest.mark.parametrize(("d", "parity"), [(1, 0), (3, 0), (3, 1), (8, 0), (8, 1), (64, 1)])
@pytest.mark.parametrize("subvectors", [1, 511, 512, 513, 1024, 1025])
def test_last_chunk_of_any_length(written, d: int, subvectors: int, parity: int):
    sample = coded(shape=(1, subvectors * d), d=d, k=3, parity=bool(parity))
    check(written(sample), sample)


@pytest.mark.parametrize("k", [2, 3, 255, 256, 257, 65535, 65536])
def test_every_width_of_index(written, k: int):
    sample = coded(method="vq", shape=(1, 600), d=1, k=k)
    check(written(sample), sample)


@pytest.mark.parametrize(
    ("d", "k", "parity"),
    [(1, 16, False), (1, 257, False), (8, 16, False), (8, 16, True), (64, 16, True)],
)
def test_a_stream_of_many_strides(d: int, k: int, parity: bool):
    sample = coded(shape=(64, 2 * codec._STRIDE // 64 + 192), d=d, k=k, parity=parity)
    g, book = sample.layer.geometry, sample.layer.codebook
    got = codec.decode_subvectors(g, sample.layer.stream, book).reshape(4, -1, 16, d)
    assert np.array_equal(got.swapaxes(1, 2).reshape(64, -1), sample.integers)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("subvectors", [16384, 16385])
def test_codewords_looked_up_in_pairs(written, k: int, subvectors: int):
    sample = coded(shape=(1, 4 * subvectors), d=4, k=k)
    assert codec._pairs(sample.layer.geometry, sample.layer.codebook) is not None
    check(written(sample), sample)


@PROPERTY
@given(st.sampled_from(("ssvq", "int8", "int4", "int3", "int2")), st.data())
def test_every_padding_bit_is_checked(method: str, data):
    sample = {"ssvq": coded, "int8": int8}.get(method, lambda: grouped("f", method))()
    g, stream = sample.layer.geometry, sample.layer.stream.copy()
    used = set(payload_bits(g))
    at = data.draw(st.integers(0, 8 * len(stream) - 1).filter(lambda i: i not in used))
    stream[at // 8] ^= 1 << at % 8
    with pytest.raises(ContainerError, match=r"^layer '[aef]': \w+ padding must be zero bits"):
        if g.k:
            codec.decode_subvectors(g, stream, sample.layer.codebook)
        else:
            codec.decode_codes(g, stream)


def payload_bits(g: Geometry):
    """Bits of a one-chunk stream that carry something."""
    if g.method == "int8":
        yield from range(8 * g.weights)
        return
    for p in range(g.b):
        yield from range(512 * p, 512 * p + g.N)
    yield from range(512 * g.b, 512 * g.b + g.N * g.sign_bits)


@pytest.mark.parametrize("index", [5, 6, 7])
@pytest.mark.parametrize("chunk", [0, 1])
def test_index_past_the_codebook_is_refused(index: int, chunk: int):
    sample = coded("a", shape=(1, 4 * 600), k=5)
    g, stream = sample.layer.geometry, sample.layer.stream.copy()
    for p in range(3):  # the first index of the chunk
        at = chunk * (g.index_part_bytes + g.sign_part_bytes) + 64 * p
        stream[at] = stream[at] & ~np.uint8(1) | index >> p & 1
    with pytest.raises(
        ContainerError, match=rf"^layer 'a': index must be below k = 5, not {index}$"
    ):
        codec.decode_subvectors(g, stream, sample.layer.codebook)


def test_group_wider_than_the_layer(written):
    sample = grouped(group=2**47)
    check(written(sample), sample)


def test_tile_larger_than_the_layer(written):
    sample = coded(tile=2**47)
    check(written(sample), sample)


def test_largest_scale_stays_finite(written):
    layer = Layer.int8("e", integers=np.array([[-128, 127]], np.int8), scale=np.float32(2.0**120))
    with open_container(written(Sample(layer, None, None))) as file:
        assert file.weight("e").tolist() == [[-(2.0**127), 127 * 2.0**120]]
