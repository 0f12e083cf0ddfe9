"""The open file: its interface, its laziness, and what it says when asked for the impossible."""

import hashlib
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vq.container import ContainerError, open_container, write_container

from .forge import Forge
from .naive import NaiveFile
from .samples import KEPT, PROPERTY, coded, int8, one_of_each, samples


def test_every_method_in_one_file(small):
    naive = NaiveFile(small.read_bytes())
    with open_container(small) as file:
        file.verify()
        assert [e.geometry.name for e in file.layers] == ["a", "b", "c", "e", "f", "g", "h"]
        assert list(naive.weights) == ["a", "b", "c", "e", "f", "g", "h"]
        for sample in one_of_each():
            assert file.geometry(sample.name) == sample.layer.geometry
            assert file.weight(sample.name).tobytes() == sample.weight.tobytes()
            assert naive.weights[sample.name] == sample.weight.tobytes()


def test_kept_tensors_come_back(small):
    naive = NaiveFile(small.read_bytes())
    with open_container(small) as file:
        assert file.kept_names == tuple(KEPT)
        for name, kept in KEPT.items():
            assert file.kept(name) == kept
            assert naive.kept[name] == (kept.dtype, kept.shape, kept.data)


@PROPERTY
@given(st.data(), st.integers(2, 4))
def test_many_layers_in_one_file(scratch, data, count: int):
    layers = [data.draw(samples(f"layer.{n}")) for n in range(count)]
    path = scratch / "many.vq.safetensors"
    write_container(path, [s.layer for s in layers], KEPT)
    naive = NaiveFile(path.read_bytes())
    with open_container(path) as file:
        for sample in layers:
            assert file.weight(sample.name).tobytes() == sample.weight.tobytes()
            assert naive.weights[sample.name] == sample.weight.tobytes()


def test_tensor_order(small):
    with open_container(small) as file:
        names = [n for n in file.tensor_spans() if not n.startswith("_pad.")]
    assert names == [
        "_scales", "a.codebook", "a.stream", "b.stream", "c.codebook", "c.stream", "e.stream",
        "f.group_scales", "f.group_zeros", "f.stream", "g.group_scales", "g.stream",
        "h.group_scales", "h.group_zeros", "h.stream", *KEPT,
    ]  # fmt: skip


def test_entries_say_where_the_bytes_lie(small):
    raw, samples = small.read_bytes(), {s.name: s.layer for s in one_of_each()}
    with open_container(small) as file:
        assert file.file_bytes == len(raw)
        assert file.image().tobytes() == raw
        assert file.layers[0].codebook == file.layers[1].codebook
        for entry in file.layers:
            span, layer = entry.stream, samples[entry.geometry.name]
            assert raw[span.offset : span.offset + span.nbytes] == layer.stream.tobytes()
            assert (entry.codebook is None) == (layer.codebook is None)


def test_one_layer_needs_one_layer_of_memory(tmp_path):
    path = tmp_path / "big.vq.safetensors"
    layers = [int8(f"l{n}", shape=(512, 2048), seed=n).layer for n in range(12)]
    write_container(path, layers)
    one = 512 * 2048
    tracemalloc.start()
    try:
        with open_container(path) as file:
            assert tracemalloc.get_traced_memory()[1] < one
            for layer in layers:
                file.integers(layer.geometry.name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 12 * one
    assert peak < 4 * one


def test_reading_one_layer_ignores_damage_in_another(written):
    layers = [coded("a"), coded("b", seed=1)]
    path = written(*layers, kept=KEPT)
    with open_container(path) as file:
        hurt = file.layers[1].stream.offset
    raw = bytearray(path.read_bytes())
    raw[hurt] ^= 1
    path.write_bytes(raw)
    with open_container(path) as file:
        assert file.weight("a").tobytes() == layers[0].weight.tobytes()
        assert file.kept("norm") == KEPT["norm"]
        for read in (lambda: file.weight("b"), file.verify):
            with pytest.raises(ContainerError, match=damaged(path, "b.stream")):
                read()


def test_verify_looks_at_kept_tensors_too(written):
    path = written(coded("a"), kept={"norm": KEPT["norm"]})
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with (
        open_container(path) as file,
        pytest.raises(ContainerError, match=damaged(path, "norm")),
    ):
        file.verify()


def damaged(path, tensor: str) -> str:
    text = f"{path}: tensor {tensor!r}: data must match its sha256; the file is damaged"
    return f"^{re.escape(text)}$"


def test_what_is_forgotten_is_read_again(small):
    with open_container(small) as container:
        arrays = {name: container.tensor_bytes(name) for name in container.tensor_spans()}
        copies = {name: array.copy() for name, array in arrays.items()}
        for name in arrays:
            container.forget(name)
        assert all(np.array_equal(array, copies[name]) for name, array in arrays.items())


def test_arrays_outlive_the_file(small):
    with open_container(small) as file:
        book, image = file.codebook("a"), file.image()
    assert book.tobytes() == one_of_each()[0].layer.codebook.tobytes()
    assert image.tobytes() == small.read_bytes()
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: f.weight("x"), "no layer is called 'x'"),
        (lambda f: f.geometry("x"), "no layer is called 'x'"),
        (lambda f: f.kept("a"), "no kept tensor is called 'a'"),
        (lambda f: f.codebook("e"), "layer 'e': method int8 has no codebook"),
        (lambda f: f.group_scales("e"), "layer 'e': method int8 has no groups"),
        (lambda f: f.group_zeros("a"), "layer 'a': method ssvq has no groups"),
    ],
)
def test_impossible_questions(small, ask, message: str):
    with (
        open_container(small) as file,
        pytest.raises(ContainerError, match=f"^{re.escape(f'{small}: {message}')}$"),
    ):
        ask(file)


def test_a_closed_file_says_so(small):
    with open_container(small) as file:
        file.weight("a")
    with pytest.raises(ContainerError, match=f"^{re.escape(str(small))}: file must be open, but"):
        file.weight("a")


def test_layers_without_a_scale_hold_their_integers(tmp_path):
    """A scale between two that are missing is still found, and without any there is no tensor."""
    samples = [coded(n, scales=s) for n, s in (("a", "none"), ("b", "output"), ("c", "none"))]
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [sample.layer for sample in samples])
    with open_container(path) as file:
        file.verify()
        assert file.scale("a").tolist() == [1.0]
        assert file.tensor_spans()["_scales"].nbytes == 24
        for sample in samples:
            assert file.weight(sample.name).tobytes() == sample.weight.tobytes()
        assert np.array_equal(file.weight("a"), file.integers("a"))
    write_container(path, [samples[0].layer])
    with open_container(path) as file:
        assert next(iter(file.tensor_spans())) == "a.codebook"
        assert np.array_equal(file.weight("a"), samples[0].integers)


def test_grouped_layers_have_no_scale(small):
    with open_container(small) as file:
        assert file.scale("f").shape == (0,)
        assert file.scale("a").shape == (6,)


def rom_name(book: np.ndarray) -> str:
    return "rom:" + hashlib.sha256(book.tobytes()).hexdigest()


def test_rom_codebook_must_be_the_right_one(written):
    book = coded().layer.codebook
    name = rom_name(book)
    path = written(coded(codebook=book, codebook_name=name))
    where = re.escape(f"{path}: layer 'a': codebook ")
    with (
        open_container(path) as file,
        pytest.raises(ContainerError, match=f"^{where}{name} must be supplied, it is not in "),
    ):
        file.weight("a")
    for wrong in (book + np.int8(1), book.reshape(-1), book.view(np.uint8)):
        with (
            open_container(path, rom={name: wrong}) as file,
            pytest.raises(ContainerError, match=f"^{where}must be {name} as \\[5, 4\\] int8, not "),
        ):
            file.weight("a")


def test_all_but_a_missing_codebook_is_verified(written, tmp_path):
    book = coded().layer.codebook
    path = written(coded(codebook=book, codebook_name=rom_name(book)))
    with open_container(path) as file:
        file.verify(complete=False)
        with pytest.raises(ContainerError, match=r"codebook rom:\w+ must be supplied"):
            file.verify()
    forge = Forge(path.read_bytes())
    start = forge.start("a.stream")
    for plane in range(3):
        forge.data[start + 64 * plane] |= 1  # an index of 7, with k = 5
    with (
        open_container(forge.write(tmp_path)) as file,
        pytest.raises(ContainerError, match=r": layer 'a': index .*7"),
    ):
        file.verify(complete=False)


def test_rom_codebook_of_ssvq_must_be_non_negative(written, tmp_path):
    good = coded().layer.codebook
    bad = -good
    forge = Forge(written(coded(codebook=good, codebook_name=rom_name(good))).read_bytes())
    forge.layer("a")["codebook"] = rom_name(bad)
    with (
        open_container(forge.write(tmp_path), rom={rom_name(bad): bad}) as file,
        pytest.raises(
            ContainerError, match=r": layer 'a': codebook must be non-negative, not -\d+$"
        ),
    ):
        file.weight("a")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "must be a readable file, not refused (No such file or directory)"),
        (lambda p: p.mkdir(), "must be a readable file, not refused (Is a directory)"),
        (lambda p: p.write_bytes(b""), "file must not be empty"),
        (lambda p: p.write_bytes(b"x"), "file must hold at least 8 bytes, not 1"),
    ],
)
def test_things_that_are_no_file(tmp_path, make, message: str):
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(ContainerError, match=f"^{re.escape(f'{path}: {message}')}$"):
        open_container(path)
