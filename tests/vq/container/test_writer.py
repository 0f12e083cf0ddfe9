"""What the writer promises about places, sizes, and about never leaving a half file."""

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from vq.container import (
    ContainerError,
    Kept,
    Layer,
    OutputError,
    Provenance,
    atomic_file,
    atomic_files,
    open_container,
    plan_file,
    write_container,
)
from vq.container import writer as writer_module

from .samples import KEPT, PROPERTY, coded, grouped, int8, samples


@PROPERTY
@given(st.lists(samples(), min_size=1, max_size=1), st.booleans())
def test_places_and_size_follow_the_plan(scratch, layers, with_kept: bool):
    path, kept = scratch / "plan.vq.safetensors", KEPT if with_kept else {}
    write_container(path, [s.layer for s in layers], kept)
    shapes = {name: (t.dtype, t.shape) for name, t in kept.items()}
    plan = plan_file([s.layer.geometry for s in layers], shapes, Provenance())
    assert plan.file_bytes == path.stat().st_size
    assert plan.data_offset % 4096 == 0
    with open_container(path) as file:
        for name, span in file.tensor_spans().items():
            assert span.offset % 64 == 0 or name.startswith("_pad.")


def test_stock_reader_gives_the_same_bytes(small):
    raw = small.read_bytes()
    with open_container(small) as file, safe_open(small, framework="numpy") as stock:
        for name, span in file.tensor_spans().items():
            if name == "half":
                continue  # numpy has no bfloat16
            array = stock.get_tensor(name)
            assert array.tobytes() == raw[span.offset : span.offset + span.nbytes]


def test_header_length_does_not_depend_on_values(tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_container(a, [coded(seed=1).layer], provenance=Provenance(seed=0))
    calibration = hashlib.sha256(b"data").hexdigest()
    provenance = Provenance(seed=2**64 - 1, calibration=calibration)
    write_container(b, [coded(seed=2).layer], provenance=provenance)
    assert a.read_bytes()[:8] == b.read_bytes()[:8]
    assert len(a.read_bytes().rstrip()) == len(b.read_bytes().rstrip())
    with open_container(b) as file:
        assert file.provenance == provenance


def test_the_same_input_gives_the_same_file(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        write_container(path, [coded().layer], KEPT)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_without_layers(tmp_path):
    path = tmp_path / "empty.vq.safetensors"
    write_container(path, [])
    with open_container(path) as file:
        assert (file.layers, file.kept_names) == ((), ())


def test_rom_codebook_is_only_named(tmp_path):
    book = coded().layer.codebook
    name = "rom:" + hashlib.sha256(book.tobytes()).hexdigest()
    sample = coded(codebook=book, codebook_name=name)
    path = tmp_path / "rom.vq.safetensors"
    write_container(path, [sample.layer])
    with open_container(path, rom={name: book}) as file:
        assert file.layers[0].codebook is None
        assert list(file.tensor_spans()) == ["_scales", "_pad.0", "a.stream"]
        assert file.weight("a").tobytes() == sample.weight.tobytes()


def test_kept_from_numpy_of_any_layout():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    kept = Kept.from_numpy(array)
    assert (kept.dtype, kept.shape) == ("I32", (3, 2))
    assert np.array_equal(np.frombuffer(kept.data, "<i4").reshape(3, 2), array)


# ---- what the writer refuses -------------------------------------------------------------------

ONE = "container has 1 problem:\n- "
BOOK = np.array([[1, 2], [3, 4]], np.int8)
SSVQ = dict(
    codebook=BOOK, indices=np.array([0, 1]), signs=np.zeros((2, 2), bool),
    scale=np.ones(1, np.float32), shape=(1, 4),
)  # fmt: skip
INT8 = dict(integers=np.ones((2, 3), np.int8), scale=np.ones(1, np.float32))
INT4 = dict(
    method="int4", codes=np.ones((2, 3), np.uint8), group=2,
    group_scales=np.ones((2, 2), np.float16), group_zeros=np.ones((2, 2), np.uint8),
)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "base", "changes", "message"),
    [
        ("ssvq", SSVQ, {"codebook": -BOOK}, "codebook must be non-negative, not -4"),
        ("ssvq", SSVQ, {"codebook": BOOK.astype(int)}, "codebook must be int8, not int64"),
        ("ssvq", SSVQ, {"codebook": BOOK[0]}, "codebook must be [k, d], not [2]"),
        ("ssvq", SSVQ, {"codebook": BOOK[:1]}, "k must be 2 to 65536, not 1"),
        ("ssvq", SSVQ, {"codebook_name": "rom:" + 64 * "0"}, "codebook must be rom:000"),
        ("ssvq", SSVQ, {"indices": np.array([0, 2])}, "indices must be below k = 2, not 2"),
        ("ssvq", SSVQ, {"indices": np.array([0, -1])}, "indices must be below k = 2, not -1"),
        ("ssvq", SSVQ, {"indices": np.ones(2)}, "indices must be integers, not float64"),
        ("ssvq", SSVQ, {"indices": np.array([0])}, "indices must be [2], not [1]"),
        ("ssvq", SSVQ, {"signs": np.zeros((2, 2), int)}, "signs must be bool, not int64"),
        ("ssvq", SSVQ, {"signs": np.zeros((1, 2), bool)}, "signs must be [2, 2], not [1, 2]"),
        (
            "ssvq", SSVQ, {"parity": True, "signs": np.array([[1, 0], [1, 1]], bool)},
            "signs must be of even parity in every sub-vector, not 1 odd",
        ),
        ("ssvq", SSVQ, {"scale": np.array([np.nan])}, "scale must be finite and at most 2**120"),
        ("ssvq", SSVQ, {"scale": np.array([1e300])}, "scale must be finite and at most 2**120"),
        ("ssvq", SSVQ, {"scale": np.float32(1e37)}, "scale must be finite and at most 2**120"),
        ("ssvq", SSVQ, {"scale": np.ones((1, 2))}, "scale must be [1], not [1, 2]"),
        ("ssvq", SSVQ, {"scale": np.ones(3)}, "scales must be 0, 1 or 1, one per output, not 3"),
        ("int8", INT8, {"integers": np.ones((2, 3))}, "integers must be int8, not float64"),
        ("int8", INT8, {"shape": (3, 3)}, "integers must be [3, 3], not [2, 3]"),
        ("int8", INT8, {"scale": np.array([np.inf])}, "scale must be finite and at most 2**120"),
        ("grouped", INT4, {"method": "int8"}, "scales must be 1 or 2, not 0"),
        ("grouped", INT4, {"method": "int5"}, "method must be one of"),
        ("grouped", INT4, {"codes": np.ones((2, 3), np.int8)}, "codes must be uint8, not int8"),
        ("grouped", INT4, {"codes": 16 * INT4["codes"]}, "codes must be below 16, not 16"),
        ("grouped", INT4, {"shape": (3, 3)}, "codes must be [3, 3], not [2, 3]"),
        (
            "grouped", INT4, {"group_scales": np.ones((2, 2), np.float32)},
            "group_scales must be float16, not float32",
        ),
        (
            "grouped", INT4, {"group_scales": np.ones((2, 1), np.float16)},
            "group_scales must be [2, 2], not [2, 1]",
        ),
        (
            "grouped", INT4, {"group_scales": np.full((2, 2), np.inf, np.float16)},
            "group_scales must be finite, not NaN or infinity",
        ),
        (
            "grouped", INT4, {"group_zeros": np.full((2, 2), 16, np.uint8)},
            "group_zeros must be below 16, not 16",
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_named(make: str, base: dict, changes: dict, message: str):
    with pytest.raises(ContainerError, match="^" + re.escape(f"layer 'a': {message}")):
        getattr(Layer, make)("a", **{**base, **changes})


@pytest.mark.parametrize(
    ("layers", "kept", "message"),
    [
        (
            [coded("a"), int8("a")], {},
            ONE + "tensor 'a.stream' must appear once, not twice",
        ),
        ([coded("a")], {"a.stream": KEPT["norm"]}, ONE + "tensor 'a.stream'"),
        ([], {"_pad.0": KEPT["norm"]}, ONE + "tensor '_pad.0' must not have"),
        ([], {"": KEPT["norm"]}, ONE + "tensor '' must be named by non-empty"),
        ([], {"x": Kept("F128", (1,), b"")}, ONE + "tensor 'x': dtype must be"),
        ([], {"x": Kept("U8", (-1,), b"")}, ONE + "tensor 'x': shape must be"),
        ([], {"x": Kept("U8", (3,), b"ab")}, "tensor 'x': data must be 3 bytes, not 2"),
        (
            [coded("a"), coded("b", codebook_name="a.codebook", k=6)], {},
            ONE + "codebook 'a.codebook' must have one shape, not two",
        ),
        (
            [coded("a"), coded("b", codebook_name="a.codebook", seed=1)], {},
            "layer 'b': codebook must equal the shared 'a.codebook'",
        ),
    ],
)  # fmt: skip
def test_colliding_names_are_refused(tmp_path, layers, kept: dict, message: str):
    with pytest.raises(ContainerError, match="^" + re.escape(message)):
        write_container(tmp_path / "x.safetensors", [s.layer for s in layers], kept)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_its_codebook_is_refused(tmp_path):
    layer = replace(coded().layer, codebook=None)
    with pytest.raises(
        ContainerError, match=r"^tensor 'a\.codebook': data must be 20 bytes, not 0$"
    ):
        write_container(tmp_path / "x.safetensors", [layer])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, r"metadata 'seed' must be below 2\*\*64, not -1"),
        ({"seed": 2**64}, r"metadata 'seed' must be below 2\*\*64, not 18446744073709551616"),
        (
            {"calibration": "abc"},
            r"metadata 'calibration' must be a sha256 of 64 digits, not 'abc'",
        ),
    ],
)
def test_provenance_has_fixed_widths(fields: dict, message: str):
    with pytest.raises(ContainerError, match=f"^{message}$"):
        Provenance(**fields)


def test_kept_of_an_unknown_type_is_refused():
    with pytest.raises(ContainerError, match=r"^kept tensor's dtype must be storable, not complex"):
        Kept.from_numpy(np.zeros(1, complex))


# ---- places that cannot be written --------------------------------------------------------------


def refused(path, reason: str) -> str:
    place = re.escape(str(path))
    return rf"^{place}: must be writable, not refused \({reason}\); nothing was changed$"


def test_missing_folder(tmp_path):
    path = tmp_path / "missing" / "x.safetensors"
    with pytest.raises(OutputError, match=refused(path, "No such file or directory")):
        write_container(path, [coded().layer])


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.safetensors"
    with pytest.raises(OutputError, match=refused(path, "Not a directory")):
        write_container(path, [coded().layer])


def test_a_folder_where_the_file_should_be(tmp_path):
    path = tmp_path / "x.safetensors"
    path.mkdir()
    with pytest.raises(OutputError, match=refused(path, "Is a directory")):
        write_container(path, [coded().layer])
    assert list(tmp_path.iterdir()) == [path]


def test_folder_without_permission(tmp_path, monkeypatch):
    def denied(**_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(writer_module.tempfile, "mkstemp", denied)
    path = tmp_path / "x.safetensors"
    with pytest.raises(OutputError, match=refused(path, "Permission denied")):
        write_container(path, [coded().layer])


class FullDisk:
    """A file whose disk fills up after ``room`` bytes."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._file.close()


@pytest.mark.parametrize("room", [0, 100, 4096])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, room: int):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    opened = os.fdopen
    monkeypatch.setattr(writer_module.os, "fdopen", lambda *a: FullDisk(opened(*a), room))
    layer = coded(shape=(64, 640)).layer
    with pytest.raises(OutputError, match=refused(path, "No space left on device")):
        write_container(path, [layer])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "umask"])
def test_late_failure_leaves_the_old_file(tmp_path, monkeypatch, call: str):
    def fail(*_args):
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(writer_module.os, call, fail)
    with pytest.raises(OutputError, match=refused(path, "Input/output error")):
        write_container(path, [coded().layer])
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_any_exception_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_between_write_and_rename(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    program = """
import os, pathlib, signal, sys
from vq.container import atomic_file
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with atomic_file(sys.argv[1]) as file:
    file.write(b"new")
"""
    child = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert child.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    # Nothing can clean up after SIGKILL: what stays is hidden and never taken for a container.
    (litter,) = (p for p in tmp_path.iterdir() if p != path)
    assert litter.name.startswith(".x.safetensors.")
    write_container(path, [coded().layer])
    with open_container(path) as file:
        file.verify()


def test_new_file_has_ordinary_permissions(tmp_path):
    path = tmp_path / "x.safetensors"
    (tmp_path / "plain").write_text("")
    write_container(path, [])
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_grouped_zero_is_implied(tmp_path):
    path = tmp_path / "x.safetensors"
    sample = grouped("f", "int3", zeros=False)
    write_container(path, [sample.layer])
    with open_container(path) as file:
        assert set(file.group_zeros("f").reshape(-1).tolist()) == {4}
        assert "f.group_zeros" not in file.tensor_spans()


def test_files_that_belong_together_are_replaced_together(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    with atomic_files([first, second]) as (a, b):
        a.write(b"1")
        b.write(b"2")
        assert not first.exists()
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    with pytest.raises(OutputError, match=rf"^{first}, {second}: must be writable, not refused"):
        with atomic_files([first, second]) as (a, b):
            a.write(b"3")
            raise OSError(errno.EFBIG, "File too large")
    with pytest.raises(OutputError, match=rf"^{tmp_path}/no/c: must be writable, not refused"):
        with atomic_files([first, tmp_path / "no" / "c"]):
            pass
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert sorted(tmp_path.iterdir()) == [first, second]
