"""Memory images: the map leads to every stream, codebook and scale."""

import hashlib

import pytest

from tests.golden import make
from tests.vq.container.samples import KEPT, coded, one_of_each
from vq.container import write_container
from vq.errors import ConfigError
from vq.export import export_dram


@pytest.fixture
def every(tmp_path):
    samples = [*one_of_each(), coded("t", shape=(6, 10), transposed=True, seed=3)]
    path = tmp_path / "every.vq.safetensors"
    write_container(path, [s.layer for s in samples], KEPT)
    return path, samples


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
