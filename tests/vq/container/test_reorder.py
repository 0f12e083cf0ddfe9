"""Other blocks of outputs: the same weights, the same sizes, and back again the same bytes."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.golden import make
from vq.container import (
    Container,
    ContainerError,
    Kept,
    Provenance,
    account,
    open_container,
    write_container,
)
from vq.container.reorder import write_reordered

from .samples import KEPT, PROPERTY, Sample, coded, grouped, int8, one_of_each, samples

MADE = Provenance(tool="another 1.0", recipe='{"*": {}}', seed=7, calibration="5a" * 32)


def reordered(path: Path, tile: int) -> Path:
    """The copy of a file in blocks of ``tile`` outputs, beside it."""
    target = path.with_name(f"{tile}-{path.name}")
    with open_container(path) as file:
        write_reordered(target, file, tile)
    return target


def contents(file: Container) -> tuple:
    """All that must not depend on the order."""
    layers = [
        (
            dataclasses.replace(entry.geometry, tile_outputs=48),
            file.weight(entry.geometry.name).tobytes(),
            file.scale(entry.geometry.name).tobytes(),
        )
        for entry in file.layers
    ]
    kept = {name: file.kept(name) for name in file.kept_names}
    return layers, kept, file.provenance


def fits(sample: Sample, tile: int) -> bool:
    g = sample.layer.geometry
    return g.axis != "out" or tile % g.d == 0


@settings(PROPERTY, max_examples=30)
@given(samples())
def test_weights_stay_and_the_way_back_gives_the_same_bytes(scratch, sample: Sample) -> None:
    path = scratch / "start.vq.safetensors"
    write_container(path, [sample.layer], KEPT, MADE)
    first = sample.layer.geometry.tile_outputs
    tiles = [tile for tile in (8, 32, 64, 16, first) if fits(sample, tile)]
    with open_container(path) as file:
        want = contents(file)
    at = path
    for tile in tiles:
        at = reordered(at, tile)
        with open_container(at) as file:
            file.verify()
            assert {entry.geometry.tile_outputs for entry in file.layers} == {tile}
            assert contents(file) == want
    assert at.read_bytes() == path.read_bytes()


def test_a_layer_starts_as_the_writer_would_have_it(tmp_path: Path) -> None:
    """Against layers that are made in the other order, shared codebook and all."""
    kinds = [
        lambda tile: coded("ragged", shape=(21, 10), tile=tile),
        lambda tile: coded("parity", shape=(24, 9), tile=tile, parity=True, scales="output"),
        lambda tile: coded("vq", "vq", (40, 3, 2, 2), axis="out", d=4, tile=tile),
        lambda tile: int8("int8", (19, 7), tile, per_output=True),
        lambda tile: grouped("int4", "int4", (33, 20), tile),
        lambda tile: grouped("int3", "int3", (12, 5), tile, zeros=False),
    ]
    for tile in (16, 8, 32):
        layers = [kind(tile).layer for kind in kinds]
        write_container(tmp_path / f"{tile}", layers, KEPT, MADE)
    for start, tile in itertools.permutations((16, 8, 32), 2):
        copy = reordered(tmp_path / f"{start}", tile)
        assert copy.read_bytes() == (tmp_path / f"{tile}").read_bytes()


def test_every_size_stays(tmp_path: Path) -> None:
    layers = [s.layer for s in one_of_each()]
    path = tmp_path / "file"
    write_container(path, layers, KEPT, MADE)
    with open_container(path) as file, open_container(reordered(path, 8)) as other:
        assert {n: s.nbytes for n, s in file.tensor_spans().items()} == {
            n: s.nbytes for n, s in other.tensor_spans().items()
        }
        counted = [account([e.geometry for e in each.layers]) for each in (file, other)]
        bits = [[one.bits_per_weight for one in each] for each in counted]
        assert bits[0] == bits[1]


def test_the_golden_file_without_its_rom(tmp_path: Path) -> None:
    """A codebook in ROM, a shared one, an embedding, and layers of several orders."""
    copy = tmp_path / "copy"
    with open_container(make.FILE) as file:
        write_reordered(copy, file, 32)
        names = list(file.tensor_spans())
    with open_container(copy, rom=make.rom()) as file, np.load(make.WEIGHTS) as weights:
        file.verify()
        assert list(file.tensor_spans()) == names
        for name in weights.files:
            assert file.weight(name).tobytes() == weights[name].tobytes()


def test_sub_vectors_that_straddle_blocks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_container(path, [coded("a", axis="out", d=16, shape=(32, 4)).layer])
    message = r"^layer 'a': tile_outputs must be a multiple of d = 16 when axis is 'out', not 8$"
    with pytest.raises(ContainerError, match=message):
        reordered(path, 8)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("part", ["a.stream", "kept"])
def test_damage_is_found_and_never_copied(tmp_path: Path, part: str) -> None:
    path = tmp_path / "file"
    write_container(path, [coded("a").layer], {"kept": Kept.from_numpy(np.ones(3, np.float32))})
    with open_container(path) as file:
        at = file.tensor_spans()[part].offset
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ContainerError, match=rf"file: tensor '{part}': data must match its sha256"):
        reordered(path, 8)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
