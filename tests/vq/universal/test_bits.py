"""Three ways to charge a codebook that networks share."""

from dataclasses import replace

import pytest

from vq import VQ, Int8
from vq.container import Geometry, account
from vq.errors import ConfigError
from vq.universal.bits import universal_bits

ROM = "rom:" + 64 * "a"


def layer(name: str, *shape: int, codebook: str = ROM, **settings: int | str) -> Geometry:
    made = VQ(**{"d": 4, "k": 64, **settings}).geometry(name, "linear", shape)  # type: ignore[arg-type]
    return replace(made, codebook=codebook)


def test_by_hand():
    # 1,024 and 512 sub-vectors of 6 bits, one fp32 scale; 256 bytes of book.
    large, small = layer("fc", 64, 64), layer("fc", 32, 64)
    found = universal_bits([[large], [small]])
    assert found.book_bytes == 256
    assert [n.weights for n in found.networks] == [4096, 2048]
    for network, count in zip(found.networks, (1024, 512), strict=True):
        own = 6 * count + 32
        weights = 4 * count
        assert network.indices == pytest.approx(own / weights)
        assert network.shared == pytest.approx(own / weights + 8 * 256 / 6144)
        assert network.alone == pytest.approx((own + 8 * 256) / weights)
        assert network.padding == pytest.approx(8 * 60 / weights)  # the scale's, up to 64 bytes
    assert found.indices == pytest.approx((6 * 1536 + 64) / 6144)
    assert found.shared == pytest.approx((6 * 1536 + 64 + 8 * 256) / 6144)
    assert found.padding == pytest.approx(8 * 120 / 6144)


def test_a_stored_book_counts_like_one_in_rom():
    """It is charged once, not by the account of each file; all of that is in one of the ways."""
    rom = [layer("a", 64, 64), layer("b", 64, 30)]
    stored = [replace(g, codebook="codebook:sha256:" + 64 * "a") for g in rom]
    found = universal_bits([stored])
    assert found == universal_bits([rom])
    total = sum(a.total_bytes for a in account(stored))
    (network,) = found.networks
    assert network.alone + network.padding == pytest.approx(8 * total / network.weights)


def test_layers_of_other_formats_count_and_have_no_book():
    other = Int8().geometry("head", "linear", (8, 64))
    (network,) = universal_bits([[layer("fc", 64, 64), other]]).networks
    assert network.weights == 4096 + 512
    assert network.indices == pytest.approx((6 * 1024 + 32 + 8 * 512 + 8 * 32) / 4608)


@pytest.mark.parametrize(
    "networks",
    [
        [],
        [[]],
        [[layer("a", 8, 8)], []],
        [[Int8().geometry("a", "linear", (8, 8))]],
        [[layer("a", 8, 8)], [layer("a", 8, 8, codebook="rom:" + 64 * "b")]],
        [[layer("a", 8, 8), layer("b", 8, 8, d=8)]],
    ],
)
def test_what_shares_no_book_is_refused(networks):
    with pytest.raises(ConfigError, match="networks must have layers each, and all of these one"):
        universal_bits(networks)
