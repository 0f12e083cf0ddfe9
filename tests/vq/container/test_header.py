"""The header: what the writer makes of it, and what the reader refuses."""

import json

import pytest
from safetensors import safe_open

from vq.container import ContainerError
from vq.container.header import (
    TensorSpec,
    build_header,
    canonical_json,
    is_pad,
    parse_header,
    parse_json,
)


def file_of(table: object, data: bytes = b"") -> memoryview:
    text = json.dumps(table) if not isinstance(table, str) else table
    return memoryview((4088).to_bytes(8, "little") + text.encode().ljust(4088) + data)


def row(start=0, end=64, dtype="U8", shape=(64,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_header_fills_whole_pages():
    for letters in range(3900, 4100, 7):
        header = build_header([], 0, {"x": "y" * letters})
        assert len(header) % 4096 == 0
        assert int.from_bytes(header[:8], "little") == len(header) - 8
        assert len(header.rstrip()) > len(header) - 4096


def test_header_comes_back():
    specs = [TensorSpec("a", "U8", (64,), 4096), TensorSpec("b", "F32", (), 4160)]
    header = build_header(specs, 4096, {"k": "v"})
    parsed = parse_header(memoryview(header + bytes(68)))
    assert list(parsed.tensors.values()) == specs
    assert parsed.metadata == {"k": "v"}


def test_canonical_json():
    assert canonical_json({"b": [1, True], "a": "é"}) == '{"a":"\\u00e9","b":[1,true]}'


@pytest.mark.parametrize(
    ("name", "pad"), [("_pad.0", True), ("_pad.12", True), ("_pad.", False), ("_pad.٣", False)]
)
def test_padding_is_known_by_name(name: str, pad: bool):
    assert is_pad(name) is pad


META = {"__metadata__": {}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (memoryview(b"1234567"), r"file must hold at least 8 bytes, not 7"),
        (memoryview(bytes([9]) + bytes(7)), r"header length must fit the file of 8 bytes, not 9"),
        (memoryview(b"\xff" * 4096), r"header length must fit the file of 4096 bytes, not \d+"),
        (memoryview(bytes(8)), r"data must start on a 4096-byte boundary, not at byte 8; .*"),
        (file_of("[]"), r"header must be a JSON object"),
        (file_of("{"), r"header must be valid JSON, but it is none from character \d+ on"),
        (file_of("\ufeff{}"), r"header must be valid JSON, but it is none from character 0 on"),
        (file_of({}), r"header field __metadata__ must map strings to strings"),
        (file_of({"__metadata__": {"a": 1}}), r"header field __metadata__ must map strings .*"),
        (file_of({**META, "t": {}}), r"tensor 't': must have exactly dtype, shape and data_off.*"),
        (file_of({**META, "t": row(dtype="F128")}), r"tensor 't': dtype must be a known one, .*"),
        (
            file_of({**META, "t": row(shape=[True])}),
            r"tensor 't': shape must be at most 8 sizes .*",
        ),
        (file_of({**META, "t": row(shape=[-1])}), r"tensor 't': shape must be at most 8 sizes .*"),
        (file_of({**META, "t": row(shape=9 * [1])}), r"tensor 't': shape must be at most 8 .*"),
        (file_of({**META, "t": row(shape=[2**48])}), r"tensor 't': shape must be at most 8 .*"),
        (
            file_of({**META, "t": row(start=-1)}),
            r"tensor 't': data_offsets must be two offsets, .*",
        ),
        (
            file_of({**META, "t": row(end=63)}),
            r"tensor 't': data_offsets must span the 64 bytes .*",
        ),
        (
            file_of({**META, "t": row(64, 128)}, bytes(128)),
            r"tensor 't': data_offsets must leave no hole before it",
        ),
        (
            file_of({**META, "s": row(), "t": row()}, bytes(128)),
            r"tensor 't': data_offsets must not overlap the one before it",
        ),
        (
            file_of({**META, "s": row(0, 8, shape=[8]), "t": row(8, 72)}, bytes(72)),
            r"tensor 't': must start on 64 bytes, not at 4104",
        ),
        (
            file_of({**META, "t": row()}, bytes(65)),
            r"file must end with its last tensor at byte 4160, not at 4161; it is truncated or .*",
        ),
    ],
)
def test_bad_headers_are_named(data: memoryview, message: str):
    with pytest.raises(ContainerError, match=f"^{message}$"):
        parse_header(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1.0}', "x must hold no number like '1.0'"),
        ('{"a":1e3}', "x must hold no number like '1e3'"),
        ('{"a":NaN}', "x must hold no number like 'NaN'"),
        ('{"a":1,"a":1}', "x must name 'a' once, not twice"),
        (
            '{"\\ud800":1}',
            "x must be valid JSON, but it holds .* no UTF-8",
        ),
        (
            '{"a":"\\udfff"}',
            "x must be valid JSON, but it holds .* no UTF-8",
        ),
        ("9" * 5000, "x must be valid JSON, but a number has too many digits"),
        ("[" * 100_000, "x must be valid JSON, but it nests too deeply"),
        ('{"a":' * 100_000, "x must be valid JSON, but it nests too deeply"),
        (b"\xff", "x must be valid JSON, but it holds .* no UTF-8"),
        ('"\n"', "x must be valid JSON, but it is none from character 1 on"),
    ],
)
def test_hostile_json_is_refused(text: str | bytes, message: str):
    with pytest.raises(ContainerError, match=f"^{message}$"):
        parse_json(text, "x")


def test_a_surrogate_pair_is_a_letter():
    assert parse_json('{"\\ud83d\\ude00":1}', "x") == {"\U0001f600": 1}


def test_stock_reader_agrees(small):
    with safe_open(small, framework="numpy") as stock:
        parsed = parse_header(memoryview(small.read_bytes()))
        assert set(stock.keys()) == parsed.tensors.keys()
        assert stock.metadata() == parsed.metadata
