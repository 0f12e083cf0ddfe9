"""Which layers are drawn from, how much, and in which units."""

import numpy as np
import pytest
import torch
from torch import nn

from signbook.zoo.resnet import load_resnet20, load_resnet44
from signbook.zoo.resnet8 import load_resnet8
from signbook.zoo.tiniest import load_tiniest
from tests.signbook.shared import shared
from vq import SSVQ, VQ, Int8, Recipe
from vq.errors import ConfigError, RecipeError, UnsupportedLayerError, WeightError
from vq.universal.pool import draw, source_of, whole_sub_vectors

KIND = VQ(d=4, k=16)


def mixed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16),
        nn.Flatten(), nn.Linear(16, 30), nn.Embedding(8, 16), nn.Linear(30, 3),
    )  # fmt: skip


def drawn(network, rules=KIND, samples=100, seed=0):
    return draw(source_of("net", network, rules), samples, np.random.default_rng(seed))


def test_linears_and_convolutions_that_fit_are_drawn_from():
    source = source_of("net", mixed(), KIND)
    assert {x.geometry.name: x.geometry.axis for x in source.layers} == {
        "0": "out", "2": "out", "4": "in", "6": "in",
    }  # fmt: skip
    assert source.left_out == []
    assert all(x.geometry.in_rom for x in source.layers)
    source = source_of("net", mixed(), VQ(d=24, k=16))
    # Along the outputs, tiles of 16 are no multiple of 24; the linear before has 16 inputs.
    assert [x.geometry.name for x in source.layers] == ["6"]
    assert source.left_out == ["0", "2", "4"]


def test_layers_give_by_their_size_and_every_draw_is_a_whole_sub_vector():
    points, found = drawn(mixed())
    # 16 * 27 / 4, 16 * 9 / 4, 30 * 16 / 4, and 3 * 7: two inputs of each output are left over.
    assert found.held == (108, 36, 120, 21) and sum(found.held) == 285
    assert found.counts == (38, 13, 42, 7)
    assert points.shape == (100, 4) and points.dtype == np.float32
    last = whole_sub_vectors(source_of("net", mixed(), KIND).layers[-1])
    weight = mixed()[6].weight.detach()
    unit = weight.square().mean().sqrt()
    assert np.array_equal(last, (weight[:, :28] / unit).reshape(-1, 4).numpy())
    assert {tuple(p) for p in points[-7:]} <= {tuple(p) for p in last}
    assert len({tuple(p) for p in points}) == 100, "without replacement"


def test_a_network_that_is_short_is_drawn_from_again():
    points, found = drawn(nn.Sequential(nn.Linear(8, 2)), samples=50)
    assert (found.held, found.counts) == ((4,), (50,))
    assert len({tuple(p) for p in points}) == 4


def test_units_are_those_of_the_scales():
    network = mixed()
    with torch.no_grad():
        network[4].weight[0] *= 100
    by_layer = source_of("net", network, Recipe({"4": VQ(d=4, k=8)}))
    by_output = source_of("net", network, Recipe({"4": VQ(d=4, k=8, scale="output")}))
    whole = whole_sub_vectors(by_layer.layers[0])
    assert np.square(whole).mean() == pytest.approx(1)
    for row in whole_sub_vectors(by_output.layers[0]).reshape(30, -1):
        assert np.square(row).mean() == pytest.approx(1)
    by_norm = source_of("net", network, Recipe({"0": VQ(d=4, k=8, scale="norm")}))
    assert by_norm.layers[0].per_output
    assert np.array_equal(
        drawn(network, SSVQ(d=4, k=8))[0], np.abs(drawn(network, VQ(d=4, k=8))[0])
    )


def test_weights_without_modules():
    network = mixed()
    weights = [network[i].weight for i in (0, 2, 4, 6)]
    points, found = drawn(weights)
    assert [g.op for g in found.geometries] == ["conv2d", "conv2d", "linear", "linear"]
    assert np.array_equal(points, drawn(network)[0])
    with pytest.raises(ConfigError, match="'net': weight 1 must have 2 to 4 dimensions and"):
        drawn([weights[0], torch.ones(3)])
    with pytest.raises(ConfigError, match="'net': must be a module, not weights, for a recipe"):
        drawn(weights, Recipe({"*": KIND}))


def test_recipes_choose_and_other_formats_are_not_drawn_from():
    recipe = Recipe({"4": VQ(d=4, k=500, shared="s"), "6": Int8(), "0": None})
    source = source_of("net", mixed(), recipe)
    assert [x.geometry.name for x in source.layers] == ["4"]
    assert source.kind.k == 500  # more than its sub-vectors: the book is not its own
    with pytest.raises(RecipeError, match=r"network 'net': recipe has 1 problem:\n- key 'gone'"):
        drawn(mixed(), Recipe({"gone": KIND}))
    with pytest.raises(ConfigError, match="recipe must give layers the method ssvq or vq"):
        drawn(mixed(), Recipe({"*": Int8()}))
    with pytest.raises(ConfigError, match="not vq of d = 4, k = 16 and vq of d = 8, k = 16"):
        drawn(mixed(), Recipe({"4": KIND, "6": VQ(d=8, k=16)}))
    with pytest.raises(UnsupportedLayerError, match="network 'net': model has 1 problem"):
        drawn(nn.Sequential(nn.ConvTranspose2d(8, 8, 3)), Recipe({"*": KIND}))


def test_weights_that_layers_share_count_once_and_not_with_an_embedding():
    tied = nn.Sequential(nn.Embedding(8, 16), *(nn.Linear(16, 16) for _ in range(3)))
    tied.append(nn.Linear(16, 8))
    tied[4].weight, tied[3].weight = tied[0].weight, tied[1].weight
    source = source_of("net", tied, KIND)
    assert [x.geometry.name for x in source.layers] == ["1", "2"] and source.left_out == []


def test_networks_that_give_nothing():
    zeros = mixed()
    with torch.no_grad():
        for parameter in zeros.parameters():
            parameter.zero_()
    for network, lacking in (
        (nn.Sequential(nn.ReLU()), "none; choose"),
        (nn.Sequential(nn.Linear(3, 8)), "none; '0' will not do; choose"),
        (zeros, "none; '0', '2', '4', '6' will not do"),
    ):
        with pytest.raises(ConfigError, match=f"network 'net': must have a layer with.*{lacking}"):
            drawn(network)
    absent = nn.Sequential(nn.Linear(8, 8, bias=False))
    absent[0].weight = nn.Parameter(torch.empty(8, 8, device="meta"))
    with pytest.raises(ConfigError, match="'net': model must hold values"):
        drawn(absent)


def test_weights_that_are_no_numbers():
    network = mixed()
    with torch.no_grad():
        network[4].weight[1, 2] = float("nan")
        network[6].weight[:2, 0] = float("inf")
    with pytest.raises(
        WeightError, match=r"network 'net' has 2 problems:\n- layer '4'.* 1 are NaN"
    ):
        drawn(network)


@pytest.mark.parametrize(
    ("load", "file", "layers", "held"),
    [
        (load_resnet20, "resnet_cifar10/resnet20-12fca82f.th", 20, (67084, 33542)),
        (load_resnet44, "resnet_cifar10/resnet44-014dd654.th", 44, (163852, 81926)),
        (load_resnet8, "mlperf_tiny/resnet8_cifar10.h5", 10, (19340, 9670)),
        (load_tiniest, "tiniest_cifar10/tiniest.pt", 33, (23636, 11497)),
    ],
)
def test_networks_of_cifar_10_give_sub_vectors_of_all_their_layers(load, file, layers, held):
    if file.endswith("h5"):
        pytest.importorskip("h5py")
    network = load(shared(file))
    for d, count in zip((4, 8), held, strict=True):
        _, found = drawn(network, VQ(d=d, k=64), samples=3000)
        assert len(found.geometries) == layers and not found.left_out
        assert sum(found.held) == count and sum(found.counts) == 3000
