"""What remains at run time raises the layout, is described, counted, and checked before use."""

import json

import numpy as np
import pytest

from tests.vq.container.naive import NaiveFile
from vq.container import Kept, Layer, metadata, open_container, write_container
from vq.container.reorder import write_reordered
from vq.container.runtime import PARTS, describe, parse_parts
from vq.errors import ConfigError, ContainerError

RNG = np.random.default_rng(0)


def layer(name, inputs=8):
    integers = RNG.integers(-7, 7, (4, inputs)).astype(np.int8)
    return Layer.int8(name, integers=integers, scale=np.ones(1, np.float32))


def kept(**arrays):
    return {f"_runtime.{n}": Kept.from_numpy(np.asarray(a)) for n, a in arrays.items()}


def parts():
    """Rows of the description, and tensors by name."""
    rows = [
        {"kind": "transform", "layers": ["a", "b"]},
        {"kind": "rounding", "layers": ["a"], "bits": 4, "symmetric": True},
        {"kind": "prefix", "layers": ["attn"], "heads": 4},
    ]
    f = np.float32
    tensors = kept(
        **{
            "0.first": np.ones((2, 4, 4), f), "0.scale": np.ones(8, f),
            "0.order": np.arange(8, dtype=np.int32), "0.second": np.ones((1, 4, 4), f),
            "1.clip": np.ones(1, f), "2.tokens": np.arange(3, dtype=np.int32),
            "2.keys": np.ones((1, 2, 3, 5), f), "2.values": np.ones((1, 2, 3, 5), f),
        }
    )  # fmt: skip
    return rows, tensors


def stored(path, rows, tensors):
    text = json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()
    own = {"norm": Kept.from_numpy(np.ones(3, np.float32)), **tensors}
    return write_container(
        path, [layer("a"), layer("b")], own | {PARTS: Kept("U8", (len(text),), text)}
    )


def test_parts_raise_the_layout_and_are_counted(tmp_path, monkeypatch):
    path = tmp_path / "a.vq.safetensors"
    assert stored(path, *parts()).layout == "vqstream/2"
    with open_container(path) as file:
        assert file.layout == "vqstream/2" and [p.kind for p in file.runtime] == [
            "transform", "rounding", "prefix",
        ]  # fmt: skip
        assert file.is_own("norm") and not file.is_own(PARTS) and not file.is_own("_runtime.1.clip")
        facts = file.runtime_facts()["runtime"]
        assert [(row["bytes"], row["macs_per_token"]) for row in facts] == [
            (4 * (32 + 8 + 8 + 16), 2 * 8 * (4 + 4)),
            (4, 8),
            (4 * (3 + 30 + 30), 2 * 4 * 3 * 5),
        ]
        assert file.weight("a").tobytes() == NaiveFile(path.read_bytes()).weights["a"]
        with pytest.raises(ConfigError, match=r"gptq must be made of a file .*\(transform, roundi"):
            file.require_plain("gptq")
        write_reordered(tmp_path / "b.vq.safetensors", file, 8)
    with open_container(tmp_path / "b.vq.safetensors") as copy:
        assert copy.layout == "vqstream/2" and copy.runtime_facts()["runtime"] == facts
    monkeypatch.setattr(metadata, "LAYOUTS", ("vqstream/1",))  # what an older reader knows
    with pytest.raises(ContainerError, match="layout must be 'vqstream/1', not 'vqstream/2'"):
        open_container(path)


def test_files_without_parts_keep_their_layout(tmp_path):
    path = tmp_path / "a.vq.safetensors"
    plan = write_container(path, [layer("a")], {"norm": Kept.from_numpy(np.ones(3))})
    with open_container(path) as file:
        assert plan.layout == file.layout == "vqstream/1"
        assert file.runtime == () and file.runtime_facts() == {} and file.is_own("norm")
        file.require_plain("gptq")


F32 = np.float32


@pytest.mark.parametrize(
    ("match", "part", "fields"),
    [
        ("part 0: kind must be one of .*'turn'; a newer", 0, {"kind": "turn"}),
        ("part 0: layers must be a list of names", 0, {"layers": []}),
        ("must have exactly kind, layers, bits, symm", 1, {"more": 1}),
        ("part 1: bits must be int, not True", 1, {"bits": True}),
        ("part 1: bits must be 2 to 8, not 9", 1, {"bits": 9}),
        ("layer 'c' must be a compressed linear", 1, {"layers": ["c"]}),
        ("layer 'b' must be in one transform, not", 0, {"layers": ["b", "b"]}),
        ("heads must be a multiple of 2, not 3", 2, {"heads": 3}),
    ],
)
def test_wrong_descriptions_are_refused(tmp_path, match, part, fields):
    rows, tensors = parts()
    rows[part].update(fields)
    with pytest.raises(ContainerError, match=match):
        stored(tmp_path / "a.vq.safetensors", rows, tensors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("match", "tensor", "value"),
    [
        (r"clip or scale must be the one tensor, F32 \[1\]", "1.clip", None),
        (r"clip or scale must be the one tensor, F32 \[1\]", "1.clip", np.ones(2, F32)),
        ("tensors must be keys, tokens, values, not", "2.keys", None),
        (r"'_runtime\.3\.x' must belong to a part", "3.x", np.ones(1)),
        (r"order must be \[8\], not I64 \[8\]", "0.order", np.arange(8)),
        ("second must be square blocks that divide 8", "0.second", np.ones((1, 3, 3), F32)),
        ("first must be one block, or 2, not 3", "0.first", np.ones((3, 4, 4), F32)),
        (r"must both be \[1, heads, tokens, size\]", "2.keys", np.ones((2, 2, 3, 5), F32)),
        (r"tokens must be I32 \[3\], not I64 \[3\]", "2.tokens", np.arange(3)),
    ],
)
def test_wrong_tensors_are_refused(tmp_path, match, tensor, value):
    rows, tensors = parts()
    tensors.pop(f"_runtime.{tensor}", None)
    if value is not None:
        tensors |= kept(**{tensor: value})
    with pytest.raises(ContainerError, match=match):
        stored(tmp_path / "a.vq.safetensors", rows, tensors)
    with pytest.raises(ContainerError, match="must list at least one part"):
        stored(tmp_path / "a.vq.safetensors", [], tensors)


def test_readers_check_what_a_writer_would(tmp_path, monkeypatch):
    path = tmp_path / "a.vq.safetensors"
    rows, tensors = parts()
    monkeypatch.setattr("vq.container.writer.parse_parts", lambda *_: ())
    stored(path, rows[:2], tensors)
    with pytest.raises(ContainerError, match=r"^.*a\.vq.*: tensor '_runtime\.2\.keys' must belong"):
        open_container(path)
    write_container(path, [layer("a")], kept(x=np.ones(1)))
    with pytest.raises(ContainerError, match=r"'_runtime\.parts': must be in a file of vqstream/2"):
        open_container(path)
    monkeypatch.setattr("vq.container.plan.RUNTIME_PREFIX", "norm")
    write_container(path, [layer("a")], {"norm": Kept.from_numpy(np.ones(3))})
    with pytest.raises(ContainerError, match="layout must be 'vqstream/1' of a file in which noth"):
        open_container(path)
    with pytest.raises(ContainerError, match="must be canonical JSON"):
        shapes = {name: (t.dtype, t.shape) for name, t in tensors.items()}
        own = {x.geometry.name: x.geometry for x in (layer("a"), layer("b"))}
        parse_parts(json.dumps(rows).encode(), shapes, own)
    found = parse_parts(
        json.dumps(rows, sort_keys=True, separators=(",", ":")).encode(), shapes, own
    )
    assert json.loads(describe(found)) == rows


def timed():
    """Parts that go by a time step."""
    rows = [
        {"kind": "clock", "layers": [""]},
        {"kind": "timed_rounding", "layers": ["a"], "bits": 8, "symmetric": True},
        {"kind": "timed_rounding", "layers": ["b"], "bits": 6, "symmetric": False},
        {"kind": "time_table", "layers": ["time"], "classes": 0},
        {"kind": "time_table", "layers": ["mix"], "classes": 2},
    ]
    tensors = kept(
        **{
            "0.times": np.array([9, 5, 1], np.int32), "1.scale": np.ones(3, F32),
            "2.scale": np.ones(2, F32), "2.zero": np.ones(2, np.uint8),
            "3.table": np.ones((3, 4), F32), "4.table": np.ones((3, 2, 4), F32),
        }
    )  # fmt: skip
    return rows, tensors


def test_tables_of_time_steps_multiply_channels_or_nothing(tmp_path):
    path = tmp_path / "a.vq.safetensors"
    stored(path, *timed())
    with open_container(path) as file:
        facts = file.runtime_facts()["runtime"]
    assert [row["macs_per_token"] for row in facts] == [0, 8, 8, 0, 0]
    assert [row["bytes"] for row in facts] == [12, 12, 10, 48, 96]


@pytest.mark.parametrize(
    ("match", "part", "fields"),
    [
        ("there must be 1 clock, not 0", 0, None),
        ("part 0: layers must be one, not 2", 0, {"layers": ["", "x"]}),
        ("layer 'c' must be a compressed linear or convolution", 1, {"layers": ["c"]}),
        ("part 1: bits must be 2 to 8, not 1", 1, {"bits": 1}),
        (r"part 1: zero must be U8 \[3\]", 1, {"symmetric": False}),
        ("part 2: zero must be absent", 2, {"symmetric": True}),
        ("layer 'a' must be in one timed_rounding", 2, {"layers": ["a"]}),
        (r"part 3: table must be \[rows, 9 classes, ...\], not \[3, 4\]", 3, {"classes": 9}),
        ("part 3: classes must be int, not True", 3, {"classes": True}),
        ("'norm' must not be in the file, as a time table stands", 3, {"layers": ["norm"]}),
        ("'a' must not be in the file, as a time table stands", 4, {"layers": ["a"]}),
    ],
)
def test_wrong_descriptions_of_time_steps_are_refused(tmp_path, match, part, fields):
    rows, tensors = timed()
    if fields is None:
        rows[0] = {"kind": "time_table", "layers": ["x"], "classes": 0}
        tensors["_runtime.0.table"] = tensors.pop("_runtime.0.times")
        tensors |= kept(**{"0.table": np.ones((1, 4), F32)})
    else:
        rows[part].update(fields)
    with pytest.raises(ContainerError, match=match):
        stored(tmp_path / "a.vq.safetensors", rows, tensors)


@pytest.mark.parametrize(
    ("match", "tensor", "value"),
    [
        (r"times must be I32 \[steps\], not I64 \[3\]", "0.times", np.arange(3)),
        (r"scale must be F32 \[rows\], not F32 \[3, 1\]", "1.scale", np.ones((3, 1), F32)),
        ("timed_rounding must have 1 to 3 rows, the time steps, not 4", "1.scale", np.ones(4, F32)),
        (
            "time_table must have 1 to 3 rows, the time steps, not 2",
            "3.table",
            np.ones((2, 4), F32),
        ),
        (r"table must be floats \[rows, ...\], not I64", "3.table", np.ones((3, 4), int)),
    ],
)
def test_wrong_tensors_of_time_steps_are_refused(tmp_path, match, tensor, value):
    rows, tensors = timed()
    with pytest.raises(ContainerError, match=match):
        stored(tmp_path / "a.vq.safetensors", rows, tensors | kept(**{tensor: value}))


def test_a_layer_is_rounded_once_and_a_clock_is_of_use(tmp_path):
    rows, tensors = timed()
    rows[2] = {"kind": "rounding", "layers": ["a"], "bits": 8, "symmetric": True}
    tensors.pop("_runtime.2.zero")
    tensors |= kept(**{"2.scale": np.ones(1, F32)})
    with pytest.raises(ContainerError, match="layer 'a' must be rounded once"):
        stored(tmp_path / "a.vq.safetensors", rows, tensors)
    alone = kept(**{"0.times": np.ones(1, np.int32)})
    with pytest.raises(ContainerError, match="there must be 0 clock, not 1"):
        stored(tmp_path / "a.vq.safetensors", rows[:1], alone)
