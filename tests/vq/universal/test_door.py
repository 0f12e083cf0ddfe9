"""One codebook from several networks, as a whole."""

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net
from vq import SSVQ, VQ, Recipe
from vq.container import open_container
from vq.container.rom import roms_of
from vq.errors import ConfigError
from vq.universal.pool import draw, source_of


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Sequential(nn.Linear(64, 128)), "b": nn.Sequential(nn.Conv1d(8, 8, 3))}


def made(networks=None, rules=None, **settings):
    networks = nets() if networks is None else networks
    return vq.universal_codebook(networks, rules or VQ(d=4, k=16), **{"samples": 200, **settings})


def test_every_network_gives_as_many():
    found = made()
    assert [d.name for d in found.drawn] == ["a", "b"]
    assert [sum(d.held) for d in found.drawn] == [2048, 48]
    assert [sum(d.counts) for d in found.drawn] == [200, 200]


def test_scotts_bandwidth_is_that_of_the_whole_pool():
    found = made()
    rng = np.random.default_rng(0)
    pool = np.concatenate(
        [draw(source_of(n, x, VQ(d=4, k=16)), 200, rng.spawn(1)[0])[0] for n, x in nets().items()]
    )
    variance = np.mean([np.mean((x - x.mean()) ** 2) for x in pool.T.astype(np.float64)])
    assert found.bandwidth == pytest.approx(variance**0.5 * 400 ** (-1 / 8), rel=1e-6)
    assert made(bandwidth=0.25).bandwidth == 0.25
    assert made(by="kmeans").bandwidth is None


def test_equal_seeds_give_equal_books_and_networks_do_not_disturb_each_other():
    assert made().book == made(iter(nets().items())).book
    assert made().book != made(seed=1).book
    before = {n: {k: v.clone() for k, v in x.state_dict().items()} for n, x in nets().items()}
    networks = nets()
    made(networks)
    for name, network in networks.items():
        assert all(torch.equal(v, before[name][k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("kind", [VQ(d=4, k=16), SSVQ(d=4, k=16)])
def test_the_book_compresses_all_and_files_that_name_it_load(kind, tmp_path):
    networks = {"a": Net(), "b": Net()}
    found = made(networks, kind)
    assert found.method == kind.name and (found.integers.min() < 0) == (kind.name == "vq")
    np.save(tmp_path / "book.npy", found.integers)
    rom = type(kind)(codebook=f"rom:{tmp_path / 'book.npy'}")
    assert rom.book.name == found.book.name.replace("sha256:", "rom:")
    for name, network in networks.items():
        result = vq.compress_(network, Recipe({"fc*": rom}), progress=False)
        assert all(layer.relative_error < 0.6 for layer in result.layers)
        file = tmp_path / f"{name}.vq.safetensors"
        vq.save(network, file)
        same = vq.load(file, into=Net(), rom=roms_of(tmp_path / "book.npy"))
        assert torch.equal(same.fc1.weight, network.fc1.weight)
    stored = Net()
    vq.compress_(stored, Recipe({"fc*": type(kind)(codebook=found.book)}), progress=False)
    vq.save(stored, tmp_path / "stored.vq.safetensors")
    with open_container(tmp_path / "stored.vq.safetensors") as container:
        assert {e.geometry.codebook for e in container.layers} == {found.book.tensor}


def test_bits_are_those_of_the_layers_that_were_drawn_from():
    bits = made().bits()
    assert bits.book_bytes == 64
    assert [n.weights for n in bits.networks] == [64 * 128, 192]
    assert bits.networks[0].indices == pytest.approx(1 + 32 / (64 * 128))
    assert bits.networks[0].shared == pytest.approx(bits.networks[0].indices + 512 / (8192 + 192))


def test_a_recipe_for_all_or_one_for_each():
    own = [Recipe({"0": VQ(d=4, k=16)}), Recipe({"*": VQ(d=4, k=16, axis="kernel")})]
    found = made(rules=own)
    assert [d.geometries[0].axis for d in found.drawn] == ["in", "kernel"]
    assert [sum(d.counts) for d in made(rules=Recipe({"0": VQ(d=4, k=16)})).drawn] == [200, 200]
    for recipes in (own[:1], [*own, own[0]]):
        with pytest.raises(ConfigError, match="recipes must be one for all networks, or one for"):
            made(rules=recipes)
    with pytest.raises(
        ConfigError,
        match="network 'b': must have the method, d and k of network 'a', vq of d = 4, k = 16, for "
        "one codebook, not vq of d = 8, k = 16",
    ):
        made(rules=[own[0], Recipe({"*": VQ(d=8, k=16)})])
    with pytest.raises(ConfigError, match="not ssvq of d = 4, k = 16"):
        made(rules=[own[0], Recipe({"*": SSVQ(d=4, k=16)})])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "em"}, "by must be kde, kmeans or subsample, not 'em'"),
        ({"samples": 0}, "samples must be 1 to 1,000,000, not 0"),
        ({"samples": 10**7}, "samples must be 1 to 1,000,000, not 10,000,000"),
        (
            {"bandwidth": 0.0},
            "bandwidth must be above 0 .*; without any noise it is by 'subsample'",
        ),
        ({"bandwidth": float("nan")}, "bandwidth must be above 0 and at most 100 root mean squ"),
        ({"bandwidth": 0.1, "by": "kmeans"}, "bandwidth must be absent by 'kmeans'"),
        ({"rules": VQ(d=0, k=16)}, "codebook has 1 problem:\n- d must be 1 to 64, not 0"),
        (
            {"rules": SSVQ(d=1, k=129)},
            "k must be at most 128, the codewords of d = 1 integers from 0",
        ),
        (
            {"rules": VQ(d=1, k=256)},
            "k must be at most 255, .* from -127 to 127, not 256; choose a",
        ),
        ({"samples": 5}, "k must be at most the 10 sub-vectors that are drawn, not 16; draw more"),
        ({"networks": {}}, "networks must be at least one, not none"),
    ],
)
def test_what_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        made(**settings)
