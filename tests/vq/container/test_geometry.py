"""Sizes that follow from a geometry, and fields that contradict each other."""

import re

import pytest

from vq.container import ContainerError, Geometry

SSVQ = dict(
    name="a", op="linear", shape=(6, 10), method="ssvq", axis="in", tile_outputs=16, d=4, k=5,
    sign_bits=4, scales=6, codebook="a.codebook",
)  # fmt: skip
VQ = {**SSVQ, "method": "vq", "sign_bits": 0}
INT8 = dict(name="a", op="linear", shape=(6, 10), method="int8")
INT4 = {**INT8, "method": "int4", "scales": 0, "group": 4}


def test_sizes_by_hand():
    # 6 outputs × ceil(10 / 4) = 18 sub-vectors; 3 index bits, 4 sign bits each.
    g = Geometry(**SSVQ)
    assert (g.O, g.I, g.N, g.b, g.weights) == (6, 10, 18, 3, 60)
    assert g.payload_bytes == 16  # 18 × 7 = 126 bits
    assert (g.chunks, g.last_subvectors, g.last_granules) == (1, 18, 1)
    assert g.stream_bytes == 3 * 64 + 64  # three planes, and 72 sign bits in one granule


@pytest.mark.parametrize(
    ("subvectors", "want"),
    [
        (512, 64 * (4 + 8)),
        (513, 64 * (4 + 8) + 64 * (4 + 1)),  # 1 sub-vector: 8 sign bits
        (576, 64 * (4 + 8) + 64 * (4 + 1)),  # 64 sub-vectors: 512 sign bits
        (577, 64 * (4 + 8) + 64 * (4 + 2)),
        (1024, 2 * 64 * (4 + 8)),
    ],
)
def test_last_chunk(subvectors: int, want: int):
    g = Geometry(**{**SSVQ, "shape": (1, 8 * subvectors), "d": 8, "k": 16, "sign_bits": 8,
                    "scales": 1})  # fmt: skip
    assert g.stream_bytes == want


def test_convolution_counts_taps():
    g = Geometry(**{**INT8, "op": "conv2d", "shape": (6, 4, 3, 3)})
    assert (g.O, g.I, g.weights, g.stream_bytes) == (6, 36, 216, 256)


def test_groups_are_ragged():
    assert Geometry(**INT4).groups == 6 * 3


@pytest.mark.parametrize(("k", "b"), [(2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (65536, 16)])
def test_index_bits(k: int, b: int):
    assert Geometry(**{**VQ, "k": k}).b == b


@pytest.mark.parametrize("fields", [SSVQ, VQ, INT8, INT4])
def test_json_comes_back(fields: dict):
    g = Geometry(**fields)
    assert Geometry.from_json(g.to_json()) == g


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (SSVQ, {"name": ""}, "name must be non-empty text, not ''"),
        (SSVQ, {"name": "\ud800"}, "name must be non-empty text, not"),
        (SSVQ, {"op": "conv4d"}, "op must be one of linear, linear_t, conv1d, conv2d, embedding"),
        (SSVQ, {"method": "vqx"}, "method must be one of ssvq, vq, int8, int4, int3, int2, not"),
        (SSVQ, {"shape": (6,)}, "shape must be 2 to 5 positive dimensions, not [6]"),
        (SSVQ, {"shape": (0, 10)}, "shape must be 2 to 5 positive dimensions, not [0, 10]"),
        (SSVQ, {"shape": (2**48, 1)}, "shape must be 2 to 5 positive dimensions, not"),
        (SSVQ, {"axis": "both"}, "axis must be one of in, out, kernel, not 'both'"),
        (SSVQ, {"tile_outputs": 0}, "tile_outputs must be positive, not 0"),
        (SSVQ, {"tile_outputs": 2**48}, "tile_outputs must be positive, not"),
        (SSVQ, {"axis": "out", "tile_outputs": 6}, "tile_outputs must be a multiple of d = 4"),
        (SSVQ, {"d": 0}, "d must be 1 to 64, not 0"),
        (SSVQ, {"d": 65, "sign_bits": 65}, "d must be 1 to 64, not 65"),
        (SSVQ, {"k": 1}, "k must be 2 to 65536, not 1"),
        (SSVQ, {"k": 65537}, "k must be 2 to 65536, not 65537"),
        (SSVQ, {"sign_bits": 2}, "sign_bits must be 4 or 3, not 2"),
        (SSVQ, {"d": 1, "sign_bits": 0}, "sign_bits must be 1, not 0"),
        (VQ, {"sign_bits": 4}, "sign_bits must be 0, not 4"),
        (SSVQ, {"scales": 2}, "scales must be 0, 1 or 6, one per output, not 2"),
        (SSVQ, {"codebook": ""}, "codebook must be the name of a tensor or rom:<sha256>, not ''"),
        (SSVQ, {"codebook": "rom:12"}, "codebook must be the name of a tensor or rom:<sha256>"),
        (SSVQ, {"group": 4}, "group must be absent, not 4"),
        (INT8, {"d": 2}, "d must be 1 for method int8, not 2"),
        (INT8, {"k": 2}, "k must be 0 for method int8, not 2"),
        (INT8, {"sign_bits": 1}, "sign_bits must be 0 for method int8, not 1"),
        (INT8, {"op": "linear_t", "shape": (6, 5, 2)}, "shape must be [O, C], not [6, 5, 2]"),
        (INT8, {"axis": "out"}, "axis must be 'in' for method int8, not 'out'"),
        (INT8, {"codebook": "x"}, "codebook must be '' for method int8, not 'x'"),
        (INT8, {"scales": 3}, "scales must be 1 or 6, not 3"),
        (INT8, {"zeros": True}, "group must be absent, not 0"),
        (INT4, {"scales": 1}, "scales must be 0 for a grouped method, not 1"),
        (INT4, {"group": 0}, "group must be positive, not 0"),
    ],
)
def test_contradictions_are_named(base: dict, changes: dict, message: str):
    fields = {**base, **changes}
    with pytest.raises(
        ContainerError, match="^" + re.escape(f"layer {fields['name']!r}: {message}")
    ):
        Geometry(**fields)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: [f], "a layer must be a JSON object, not list"),
        (lambda f: {**f, "name": 3}, "a layer's name must be str, not int"),
        (lambda f: {**f, "colour": 1}, "layer 'a': field 'colour' is unknown"),
        (lambda f: {n: v for n, v in f.items() if n != "d"}, "layer 'a': field 'd' is missing"),
        (lambda f: {**f, "d": True}, "layer 'a': d must be int, not bool"),
        (lambda f: {**f, "zeros": 0}, "layer 'a': zeros must be bool, not int"),
        (lambda f: {**f, "shape": [6, True]}, "layer 'a': shape must be integers"),
        (lambda f: {**f, "b": 4}, "layer 'a': b must be 3, not 4"),
        (lambda f: {**f, "weights": 61}, "layer 'a': weights must be 60, not 61"),
    ],
)
def test_untrusted_fields_are_named(edit, message: str):
    with pytest.raises(ContainerError, match=f"^{re.escape(message)}$"):
        Geometry.from_json(edit(Geometry(**SSVQ).to_json()))
