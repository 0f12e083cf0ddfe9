"""From a container to descriptors, and what an instance refuses."""

from pathlib import Path

import pytest

from hwsim.program.weights import layers_of
from rtl import DESCRIPTOR, CodebookMode, Method, StreamerConfig
from tests.hwsim.containers import Maker, write
from vq.container import ConfigError, open_container


def test_descriptors(tmp_path: Path) -> None:
    make = Maker()
    book = make.codebook(16, 8, signed=False)
    path = write(
        tmp_path / "x.vq.safetensors",
        [
            make.ssvq("a", (24, 40), 8, 16, codebook=book, codebook_name="shared"),
            make.int8("b", (10, 10)),
            make.ssvq("c", (24, 999), 8, 16, codebook=book, codebook_name="shared"),
            make.vq("d", (8, 8), 4, 5),
        ],
    )
    with open_container(path) as container:
        layers = layers_of(container, StreamerConfig())
        a, b, c, d = (DESCRIPTOR.from_bits(layer.descriptor) for layer in layers)
        assert a.codebook_mode == CodebookMode.LOAD
        assert a.codebook_granules == 2
        assert (a.log2_d, a.index_bits, a.chunks, a.last_granules) == (3, 4, 1, 2)
        assert (b.method, b.codebook_mode, b.stream_granules) == (Method.INT8, CodebookMode.NONE, 2)
        assert (c.codebook_mode, c.chunks) == (CodebookMode.KEEP, 6)
        assert (d.method, d.codebook_mode, d.codebook_granules) == (Method.VQ, CodebookMode.LOAD, 1)
        for layer, descriptor in zip(layers, (a, b, c, d), strict=True):
            assert descriptor.stream_address == layer.entry.stream.offset
            assert layer.padding_bytes >= 0
        assert [layer.codebook_bytes for layer in layers] == [128, 0, 0, 20]


def test_descriptors_of_parity_signs_and_codes(tmp_path: Path) -> None:
    make = Maker()
    path = write(
        tmp_path / "x.vq.safetensors",
        [
            make.ssvq("a", (24, 40), 8, 16, parity=True),
            make.codes("b", (10, 63), 3, 5, zeros=False),
            make.codes("c", (32, 72), 4, 32, zeros=True),
            make.codes("d", (32, 72), 2, 999, zeros=True),
        ],
    )
    with open_container(path) as container:
        layers = layers_of(container, StreamerConfig())
        spans = container.tensor_spans()
    a, b, c, d = (DESCRIPTOR.from_bits(layer.descriptor) for layer in layers)
    assert (a.method, a.last_granules, a.last_sign_granules) == (Method.SSVQ_PARITY, 2, 2)
    assert (b.method, b.index_bits, b.chunks) == (Method.CODES, 3, 2)
    assert b.codebook_mode == CodebookMode.NONE
    assert (c.method, c.codebook_mode) == (Method.CODES, CodebookMode.ZEROS)
    assert (c.codebook_address, c.codebook_granules) == (spans["c.group_zeros"].offset, 2)
    assert (c.group_beats, c.block_beats) == (4, 9)
    assert (d.group_beats, d.block_beats) == (9, 9)
    assert [layer.zero_bytes for layer in layers] == [0, 0, 32 * 3, 32]
    assert all(layer.padding_bytes >= 0 for layer in layers)


def test_refused_layers_are_named_with_the_limit(tmp_path: Path) -> None:
    make = Maker()
    path = write(
        tmp_path / "x.vq.safetensors",
        [
            make.ssvq("fine", (16, 16), 8, 16),
            make.ssvq("short", (16, 16), 2, 16),
            make.ssvq("odd", (16, 18), 6, 16),
            make.vq("wide", (64, 64), 8, 300),
            make.ssvq("parity", (16, 48), 12, 16, parity=True),
            make.codes("grouped", (10, 63), 4, 5, zeros=False),
            make.codes("zeros", (20, 63), 4, 5, zeros=True),
            make.codes("tile", (32, 64), 4, 32, zeros=True, tile_outputs=32),
            make.codes("few", (8, 64), 4, 32, zeros=True),
        ],
    )
    with open_container(path) as container, pytest.raises(ConfigError) as caught:
        layers_of(container, StreamerConfig())
    assert str(caught.value).splitlines() == [
        "accelerator has 9 problems:",
        "- layer 'short': d must be a power of two from 4 to 16, not 2",
        "- layer 'odd': d must be a power of two from 4 to 16, not 6",
        "- layer 'wide': k must be at most 256, not 300",
        "- layer 'parity': d must be a power of two from 4 to 16, not 12",
        "- layer 'zeros': with group zeros, outputs must be a multiple of 16 (tile_outputs), "
        "not 20",
        "- layer 'zeros': with group zeros, inputs must be a multiple of 8 (bus_bits / "
        "tile_outputs), not 63",
        "- layer 'zeros': with group zeros, group must be a multiple of 8 (bus_bits / "
        "tile_outputs), not 5",
        "- layer 'tile': with group zeros, tile_outputs must be 16, as that of the accelerator, "
        "not 32",
        "- layer 'few': with group zeros, outputs must be a multiple of 16 (tile_outputs), not 8",
    ]


def test_address_space(tmp_path: Path) -> None:
    path = write(tmp_path / "x.vq.safetensors", [Maker().int8("a", (256, 512))])
    message = r"layer 'a': stream must end below 0x10000 \(address_bits = 16\), not at 0x2"
    with open_container(path) as container, pytest.raises(ConfigError, match=message):
        layers_of(container, StreamerConfig(address_bits=16))
