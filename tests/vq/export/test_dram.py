"""Memory images: the map leads to every stream, codebook and scale."""

import errno
import hashlib
import json
import os

import pytest

from tests.golden import make
from tests.vq.container.samples import KEPT
from vq.errors import ConfigError, OutputError
from vq.export import export_dram


def test_dram_map_leads_to_every_stream_and_codebook(every, tmp_path):
    path, samples = every
    base = 0x8000_0000
    document = export_dram(path, tmp_path / "image.bin", base=base)
    image = (tmp_path / "image.bin").read_bytes()
    assert image == path.read_bytes()
    assert document["sha256"] == hashlib.sha256(image).hexdigest()
    assert (document["base"], document["bytes"]) == (base, len(image))

    def at(place):
        start = place["address"] - base
        return image[start : start + place["bytes"]]

    for row, sample in zip(document["layers"], samples, strict=True):
        layer, g = sample.layer, sample.layer.geometry
        assert [row[f] for f in ("name", "method", "d", "k", "b", "sign_bits")] == [
            g.name, g.method, g.d, g.k, g.b, g.sign_bits,
        ]  # fmt: skip
        assert row["stream"]["address"] % 64 == 0
        assert at(row["stream"]) == layer.stream.tobytes()
        if layer.codebook is None:
            assert row["codebook"] is None
        else:
            assert at(row["codebook"]) == layer.codebook.tobytes()
        assert (row["scales"] is None) == (g.scales == 0)
        if g.scales:
            assert at(row["scales"]) == layer.scale.tobytes()
    assert at(document["tensors"]["half"]) == KEPT["half"].data
    with pytest.raises(ConfigError, match="base must be a multiple of 4096, not 64"):
        export_dram(path, tmp_path / "image.bin", base=64)


def test_dram_of_a_file_with_a_codebook_in_rom(tmp_path):
    document = export_dram(make.FILE, tmp_path / "image.bin")
    row = next(r for r in document["layers"] if r["name"] == "block.rom")
    assert row["codebook"] is None and row["rom"] in make.rom()


def test_the_map_and_the_image_are_replaced_together(every, tmp_path, monkeypatch):
    path, _ = every
    out, beside = tmp_path / "image", tmp_path / "map"
    document = export_dram(path, out, beside=beside)
    assert json.loads(beside.read_text()) == document
    out.write_text("old")
    beside.write_text("old")
    synced = []

    def full(handle):
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=rf"^{beside}: must be writable, not refused \(No space"):
        export_dram(path, out, beside=beside)
    assert out.read_text() == beside.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([path, out, beside])
