"""Damage and hostility: the outcome is a ContainerError or the very same weights."""

import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vq.container import ContainerError, open_container

from .forge import Forge, assemble, snapshot

MUTATIONS = 1000  # of each kind

Mutate = Callable[[random.Random, bytearray], bytearray]


def read_all(path: Path):
    with open_container(path) as file:
        file.verify()
        return snapshot(file)


@pytest.fixture(scope="module")
def original(small: Path):
    return read_all(small)


@pytest.fixture(scope="module")
def forge(small: Path) -> Forge:
    return Forge(small.read_bytes())


# ---- blind damage ------------------------------------------------------------------------------


def place(rng: random.Random, raw: bytearray) -> int:
    """Anywhere, but as often in the header's text as in the much larger rest."""
    text = len(raw[: 8 + int.from_bytes(raw[:8], "little")].rstrip(b" "))
    return rng.randrange(text) if rng.random() < 0.5 else rng.randrange(len(raw))


def flip_a_bit(rng: random.Random, raw: bytearray) -> bytearray:
    raw[place(rng, raw)] ^= 1 << rng.randrange(8)
    return raw


def overwrite_bytes(rng: random.Random, raw: bytearray) -> bytearray:
    at = place(rng, raw)
    some = rng.randbytes(rng.randrange(1, 9))
    raw[at : at + len(some)] = some
    return raw[: len(raw)]


def overwrite_with_text(rng: random.Random, raw: bytearray) -> bytearray:
    at = place(rng, raw)
    some = rng.choice([b"0", b"9", b'"', b"}", b",", b"-1", b"1e9", b"null", b"true", b"[]", b" "])
    raw[at : at + len(some)] = some
    return raw


def truncate(rng: random.Random, raw: bytearray) -> bytearray:
    return raw[: rng.randrange(len(raw))]


def extend(rng: random.Random, raw: bytearray) -> bytearray:
    return raw + (bytes if rng.random() < 0.5 else rng.randbytes)(rng.randrange(1, 5000))


def cut_or_repeat(rng: random.Random, raw: bytearray) -> bytearray:
    a, b = sorted((place(rng, raw), place(rng, raw)))
    return raw[:a] + raw[b:] if rng.random() < 0.5 else raw[:b] + raw[a:]


def swap_blocks(rng: random.Random, raw: bytearray) -> bytearray:
    size = rng.choice([1, 8, 64])
    a, b = (place(rng, raw) // size * size for _ in range(2))
    raw[a : a + size], raw[b : b + size] = raw[b : b + size], raw[a : a + size]
    return raw


@pytest.mark.parametrize(
    "mutate",
    [
        flip_a_bit, overwrite_bytes, overwrite_with_text, truncate, extend, cut_or_repeat,
        swap_blocks,
    ],
)  # fmt: skip
def test_blind_damage(small: Path, original, tmp_path: Path, mutate: Mutate):
    raw, path, rng = small.read_bytes(), tmp_path / "x.safetensors", random.Random(mutate.__name__)
    outcomes = {"refused": 0, "same": 0}
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(rng, bytearray(raw)))
        try:
            got = read_all(path)
        except ContainerError as error:
            assert str(error).startswith(f"{path}: ")
            outcomes["refused"] += 1
        else:
            assert got == original
            outcomes["same"] += 1
    assert outcomes["refused"] > MUTATIONS / 4


def test_every_bit_of_the_data_matters(small: Path, forge: Forge, tmp_path: Path):
    raw, path = bytearray(small.read_bytes()), tmp_path / "x.safetensors"
    first = len(raw) - len(forge.data)
    for at in range(first, len(raw)):
        raw[at] ^= 1 << at % 8
        path.write_bytes(raw)
        with pytest.raises(
            ContainerError, match=r": tensor '[\w.]+': data must match its sha256; "
        ):
            read_all(path)
        raw[at] ^= 1 << at % 8


# ---- a value of the header replaced, checksums made right again ---------------------------------

VALUES = [
    None, True, False, 0, -1, 1, 2, 7, 64, 65, 2**31, 2**48 - 1, 2**48, 2**64, 10**400, 1.5,
    float("nan"), float("inf"), "", "a", "\ud800", "rom:" + 64 * "0", "_scales", "_pad.0", "ssvq",
    "int8", "F64", "BF16", [], [1], [2**47, 2**47], [0, 0], {}, {"a": 1},
]  # fmt: skip


def spots(value, path=()):
    """Every place in a JSON document."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from spots(value[key], (*path, key))


def plant(document, path, value) -> None:
    *parents, last = path
    for key in parents:
        document = document[key]
    document[last] = value


def test_any_value_anywhere_in_the_header(forge: Forge, original, tmp_path: Path):
    # A legitimate other file may come out (a larger tile reads the same bytes in another order),
    # so equality is asked only where the layers' geometry did not change.
    rng = random.Random(3)
    for _ in range(MUTATIONS):
        forged = forge.copy()
        part = rng.choice([forged.table, forged.meta, forged.geometry])
        path = rng.choice([p for p in spots(part) if p])
        plant(part, path, rng.choice(VALUES))
        if part is forged.meta:
            forged.frozen = {path[0]}
        try:
            got = read_all(forged.write(tmp_path))
        except ContainerError as error:
            assert str(error).startswith(f"{tmp_path}/forged.vq.safetensors: ")
        else:
            changed = [a[0] for a, b in zip(got[0], original[0], strict=True) if a != b]
            assert all(g not in [b[0] for b in original[0]] for g in changed)
            assert got[1] == original[1]


# ---- attacks with a known answer ----------------------------------------------------------------


def attack(message: str):
    """Register an attack; ``message`` is what the reader must say after the file's name."""

    def register(edit: Callable[[Forge], object]) -> Callable[[Forge], object]:
        ATTACKS[edit.__name__] = (edit, message)
        return edit

    return register


ATTACKS: dict[str, tuple[Callable[[Forge], object], str]] = {}


def simple(name: str, message: str, edit: Callable[[Forge], object]) -> None:
    ATTACKS[name] = (edit, message)


def of_layer(name: str, layer: str, message: str, **fields: object) -> None:
    ATTACKS[name] = (lambda f: f.layer(layer).update(fields), rf"layer '{layer}': {message}")


def of_row(name: str, tensor: str, message: str, **fields: object) -> None:
    ATTACKS[name] = (lambda f: f.table[tensor].update(fields), rf"tensor '{tensor}': {message}")


def of_meta(name: str, message: str, **fields: object) -> None:
    def edit(f: Forge) -> None:
        f.meta.update(fields)
        f.frozen = set(fields)

    ATTACKS[name] = (edit, message)


def of_data(name: str, tensor: str, at: int, some: bytes, message: str) -> None:
    def edit(f: Forge) -> None:
        start = f.start(tensor) + at
        f.data[start : start + len(some)] = some

    ATTACKS[name] = (edit, message)


KNOWN = r"dtype must be a known one, not "
SIZES = r"shape must be at most 8 sizes below 2\*\*48, not "
OFFSETS = r"data_offsets must be two offsets, not "

of_meta(
    "layout",
    r"layout must be 'vqstream/1' or .*, not 'vqstream/3'; a newer .*",
    layout="vqstream/3",
)
of_meta(
    "layout_case", r"layout must be 'vqstream/1' or .*, not 'VQSTREAM/1'; .*", layout="VQSTREAM/1"
)
of_meta(
    "layout_parts",
    r"layout must be 'vqstream/1' of a file in which nothing remains .*",
    layout="vqstream/2",
)
of_meta("unknown_key", r"metadata 'extra' is unknown", extra="")
of_meta("meta_not_text", r"header field __metadata__ must map strings to strings", tool=1)
of_meta("seed_short", r"metadata 'seed' must be 20 digits, not '1'", seed="1")
of_meta("seed_large", r"metadata 'seed' must be below 2\*\*64, not 9{20}", seed=20 * "9")
of_meta("seed_arabic", r"metadata 'seed' must be 20 digits, not '٣+'", seed=20 * "٣")
of_meta("calibration", r"metadata 'calibration' must be a sha256 of .*", calibration=64 * "A")
of_meta(
    "surrogate",
    r"header must be valid JSON, but it holds bytes or characters that are no UTF-8",
    tool="\ud800",
)
of_meta(
    "geometry_surrogate",
    r"header must be valid JSON, but it holds bytes or characters that are no UTF-8",
    geometry="\ud800",
)
of_meta(
    "geometry_text",
    r"geometry must be valid JSON, but it is none from character 1 on",
    geometry="{",
)
of_meta(
    "geometry_deep", r"geometry must be valid JSON, but it nests too deeply", geometry=10**5 * "["
)
of_meta("geometry_list", r"geometry must have exactly the fields layers and kept", geometry="[]")
of_meta(
    "geometry_float", r"geometry must hold no number like '1\.0'",
    geometry='{"kept":[],"layers":1.0}',
)  # fmt: skip
of_meta(
    "geometry_twice", r"geometry must name 'kept' once, not twice",
    geometry='{"kept":[],"layers":[],"kept":[]}',
)  # fmt: skip
of_meta(
    "geometry_kinds", r"geometry fields layers and kept must be lists",
    geometry='{"kept":[],"layers":{}}',
)  # fmt: skip
of_meta(
    "geometry_hash", r"geometry must match its sha256; the file is damaged",
    geometry_sha256=64 * "0",
)  # fmt: skip
of_meta("no_hashes", r"metadata 'sha256' must name every tensor of the file", sha256="{}")
of_meta("hash_list", r"metadata 'sha256' must name every tensor of the file", sha256="[]")
of_meta(
    "hash_text",
    r"metadata 'sha256' must be valid JSON, but it is none from character 0 on",
    sha256="",
)
simple("missing_key", r"metadata 'seed' is missing", lambda f: f.meta.pop("seed"))

of_row("dtype_unknown", "a.stream", KNOWN + "'U9'", dtype="U9")
of_row("dtype_list", "a.stream", KNOWN + r"\['U8'\]", dtype=["U8"])
of_row("dtype_same_width", "a.stream", r"dtype must be 'U8', not 'I8'", dtype="I8")
of_row(
    "dtype_wider", "a.stream", r"data_offsets must span the 512 bytes of .*, not 256", dtype="F16"
)
of_row("kept_dtype", "norm", r"dtype must be 'F32', not 'I32'", dtype="I32")
of_row("shape_absurd", "a.stream", r"data_offsets must span the \d+ bytes .*", shape=8 * [2**47])
of_row("shape_too_large", "a.stream", SIZES + r"\[281474976710656\]", shape=[2**48])
of_row("shape_negative", "a.stream", SIZES + r"\[-256\]", shape=[-256])
of_row("shape_bool", "a.stream", SIZES + r"\[True\]", shape=[True])
of_row("shape_other", "a.stream", r"shape must be \(256,\), not \(2, 128\)", shape=[2, 128])
of_row("shape_float", "a.stream", r"", shape=[256.0])
ATTACKS["shape_float"] = (ATTACKS["shape_float"][0], r"header must hold no number like '256\.0'")
of_row("offset_negative", "a.stream", OFFSETS + r"\[-1, 255\]", data_offsets=[-1, 255])
of_row("offset_three", "a.stream", OFFSETS + r"\[0, 1, 2\]", data_offsets=[0, 1, 2])
of_row("offset_backwards", "a.stream", r"data_offsets must span the 256 .*", data_offsets=[256, 0])
of_row("overlap", "b.stream", r"data_offsets must not overlap .*", data_offsets=[64, 320])
of_row("row_extra", "a.stream", r"must have exactly dtype, shape and data_offsets", strides=[1])
simple(
    "no_row", r"tensor 'b\.stream': data_offsets must leave no hole before it",
    lambda f: f.table.pop("a.stream"),
)  # fmt: skip


@attack(r"tensor 'b\.stream': name must be 'a\.stream', not 'b\.stream'")
def swapped_tensors(f: Forge) -> None:
    f.table["a.stream"], f.table["b.stream"] = f.table["b.stream"], f.table["a.stream"]


@attack(r"tensor '_pad\.99': name must be '_pad\.0', not '_pad\.99'")
def renamed_padding(f: Forge) -> None:
    f.table["_pad.99"] = f.table.pop("_pad.0")


@attack(r"file must hold the \d+ tensors of its geometry, not \d+")
def one_tensor_more(f: Forge) -> None:
    end = len(f.data)
    f.table["zzz"] = {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}


@attack(r"file must end with its last tensor at byte \d+, not at \d+; it is truncated or .*")
def trailing_data(f: Forge) -> None:
    f.data += bytes(64)


of_layer("op", "a", r"op must be one of .*, not 'conv9d'", op="conv9d")
of_layer("method", "a", r"method must be one of .*, not 'rot13'", method="rot13")
of_layer("method_other", "a", r"sign_bits must be 0, not 4", method="vq")
of_layer("axis", "a", r"axis must be one of in, out, kernel, not 'up'", axis="up")
of_layer("shape_one", "a", r"shape must be 2 to 5 positive dimensions, not \[60\]", shape=[60])
of_layer("shape_zero", "a", r"shape must be 2 to 5 positive .*, not \[0, 10\]", shape=[0, 10])
of_layer("shape_nested", "a", r"shape must be integers", shape=[[6], 10])
of_layer("shape_doubled", "a", r"scales must be 0, 1 or 12, one per output, not 6", shape=[12, 10])
of_layer("tile", "a", r"tile_outputs must be positive, not 0", tile_outputs=0)
of_layer("tile_of_out", "c", r"tile_outputs must be a multiple of d = 2 .*, not 3", tile_outputs=3)
of_layer("d_zero", "a", r"d must be 1 to 64, not 0", d=0)
of_layer("d_text", "a", r"d must be int, not str", d="4")
of_layer("d_null", "a", r"d must be int, not NoneType", d=None)
of_layer("k_one", "a", r"k must be 2 to 65536, not 1", k=1)
of_layer("k_giant", "a", r"k must be 2 to 65536, not 10+", k=10**400)
of_layer("b_other", "a", r"b must be 3, not 4", b=4)
of_layer("sign_bits", "a", r"sign_bits must be 4 or 3, not 5", sign_bits=5)
of_layer("weights", "a", r"weights must be 60, not 59", weights=59)
of_layer("scales", "a", r"scales must be 0, 1 or 6, one per output, not 5", scales=5)
of_layer("scales_of_int8", "e", r"scales must be 1 or 5, not 0", scales=0)
simple("scales_not_described", r"tensor '_scales': shape must be \(3,\), not \(9,\)",
       lambda f: f.layer("a").update(scales=0))  # fmt: skip
of_layer("group", "f", r"group must be positive, not 0", group=0)
of_layer("group_of_ssvq", "a", r"group must be absent, not 4", group=4)
of_layer("zeros_int", "f", r"zeros must be bool, not int", zeros=1)
of_layer("codebook_none", "a", r"codebook must be the name of .*, not ''", codebook="")
of_layer("codebook_rom", "a", r"codebook must be the name of .*, not 'rom:0'", codebook="rom:0")
of_layer("extra_field", "a", r"field 'z' is unknown", z=0)
simple(
    "no_field", r"layer 'a': field 'axis' is missing", lambda f: f.layer("a").pop("axis")
)  # fmt: skip
simple("layer_is_text", r"a layer must be a JSON object, not str",
       lambda f: plant(f.geometry, ("layers", 0), "a"))  # fmt: skip
simple("name_is_list", r"a layer's name must be str, not list",
       lambda f: f.layer("a").update(name=[]))  # fmt: skip
simple("name_is_empty", r"layer '': name must be non-empty text, not ''",
       lambda f: f.layer("a").update(name=""))  # fmt: skip
simple("name_surrogate", r"geometry must be valid JSON, but it holds .* that are no UTF-8",
       lambda f: f.layer("a").update(name="\ud800"))  # fmt: skip
simple("name_twice", r"container has 1 problem:\n- tensor 'a\.stream' must appear once, not twice",
       lambda f: f.layer("b").update(name="a"))  # fmt: skip
simple("shape_giant", r"container has 1 problem:\n- tensor 'e\.stream': shape must be at most .*",
       lambda f: f.layer("e").update(shape=[2**47, 2**47], weights=2**94, op="linear"))  # fmt: skip
simple("book_is_stream", r"container has 1 problem:\n- tensor 'b\.stream' must appear once, .*",
       lambda f: f.layer("c").update(codebook="b.stream"))  # fmt: skip
simple("book_is_padding", r"container has 1 problem:\n- tensor '_pad\.0' must not have a .*",
       lambda f: f.layer("c").update(codebook="_pad.0"))  # fmt: skip
simple("layers_swapped", r"tensor 'a\.codebook': shape must be \(7, 2\), not \(5, 4\)",
       lambda f: f.geometry["layers"].insert(0, f.geometry["layers"].pop(2)))  # fmt: skip
ATTACKS["layers_swapped"] = (
    ATTACKS["layers_swapped"][0], r"tensor 'a\.codebook': name must be 'c\.codebook', .*"
)  # fmt: skip
KEPT_ROW = r"geometry field kept must list \[name, dtype, shape\]"
simple("kept_row", KEPT_ROW, lambda f: plant(f.geometry, ("kept", 0), ["norm", "F32"]))
simple("kept_shape", KEPT_ROW, lambda f: plant(f.geometry, ("kept", 0, 2), [True]))
simple("kept_twice", r"geometry field kept must name every tensor once",
       lambda f: f.geometry["kept"].append(f.geometry["kept"][0]))  # fmt: skip
simple("kept_unknown", r"container has 1 problem:\n- tensor 'norm': dtype must be a known one, .*",
       lambda f: plant(f.geometry, ("kept", 0, 1), "F128"))  # fmt: skip
simple("kept_negative", r"container has 1 problem:\n- tensor 'norm': shape must be at most .*",
       lambda f: plant(f.geometry, ("kept", 0, 2), [-5]))  # fmt: skip
simple("kept_huge", r"container has 1 problem:\n- tensor 'norm': shape must be at most .*",
       lambda f: plant(f.geometry, ("kept", 0, 2), [10**4000] * 50))  # fmt: skip

FINITE = r"scale must be finite and at most 2\*\*120"
of_data("nan_scale", "_scales", 0, np.float32(np.nan).tobytes(), rf"layer 'a': {FINITE}")
of_data("signalling_nan", "_scales", 0, b"\x01\x00\x80\x7f", rf"layer 'a': {FINITE}")
of_data("infinite_scale", "_scales", 24, np.float32(np.inf).tobytes(), rf"layer 'b': {FINITE}")
of_data("huge_scale", "_scales", 28, np.float32(-1e38).tobytes(), rf"layer 'c': {FINITE}")
of_data("nan_group", "f.group_scales", 2, b"\x00\x7e", r"layer 'f': group_scales must be finite")
of_data("inf_group", "g.group_scales", 2, b"\x00\xfc", r"layer 'g': group_scales must be finite")
of_data("zero_too_large", "f.group_zeros", 3, b"\x10",
        r"layer 'f': group_zeros must be below 16, not 16")  # fmt: skip
of_data("index_past_k", "a.stream", 0, 3 * (b"\x01" + bytes(63)),
        r"layer 'a': index must be below k = 5, not 7")  # fmt: skip
of_data("index_padding", "a.stream", 63, b"\x80", r"layer 'a': index padding must be zero bits; .*")
of_data("sign_padding", "a.stream", 255, b"\x80", r"layer 'a': sign padding must be zero bits; .*")
of_data("int8_padding", "e.stream", 63, b"\x01", r"layer 'e': weight padding must be zero bits; .*")
of_data("code_padding", "f.stream", 63, b"\x80", r"layer 'f': code padding must be zero bits; .*")
of_data("negative_codebook", "a.codebook", 7, b"\x80",
        r"layer 'a': codebook must be non-negative, not -128")  # fmt: skip
of_data("padding_tensor", "_pad.0", 3, b"\x01", r"tensor '_pad\.0': padding must be zero")


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_named(forge: Forge, tmp_path: Path, name: str):
    edit, message = ATTACKS[name]
    forged = forge.copy()
    edit(forged)
    path = forged.write(tmp_path)
    peak = allocated(lambda: refused(path, message))
    assert peak < 40 * path.stat().st_size + 2**20


def refused(path: Path, message: str) -> None:
    with pytest.raises(ContainerError, match=f"(?s)^{re.escape(str(path))}: {message}$"):
        read_all(path)


def allocated(work: Callable[[], object]) -> int:
    """Peak of the memory that Python and numpy allocate during ``work``, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_legal_giants_stay_small(forge: Forge, tmp_path: Path):
    forged = forge.copy()
    for fields in forged.geometry["layers"]:
        if fields["axis"] == "in":
            fields["tile_outputs"] = 2**48 - 1
    forged.layer("g")["group"] = 2**48 - 1  # as before, one group per output
    path = forged.write(tmp_path)
    assert allocated(lambda: read_all(path)) < 2**20


def test_text_that_only_the_header_can_hold(small: Path, forge: Forge, tmp_path: Path):
    raw = small.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    text = raw[8 : 8 + length].decode().rstrip()
    path = tmp_path / "x.safetensors"
    for header, message in [
        (text[:-1] + ',"norm":{}}', r"header must name 'norm' once, not twice"),
        (text[:-1] + ',"\\ud800":{}}', r"header must be valid JSON, but (it|a number) .*"),
        (
            text[:-1] + ',"x":' + 10**5 * "[" + "}",
            r"header must be valid JSON, but (it|a number) .*",
        ),
        (
            text[:-1] + ',"x":' + 5000 * "9" + "}",
            r"header must be valid JSON, but (it|a number) .*",
        ),
        (text[:-1] + ',"x":NaN}', r"header must hold no number like 'NaN'"),
        (text + "x", r"header must be valid JSON, but (it|a number) .*"),
        (text + "\0", r"header must be valid JSON, but (it|a number) .*"),
    ]:
        path.write_bytes(assemble(header, forge.data))
        refused(path, message)
