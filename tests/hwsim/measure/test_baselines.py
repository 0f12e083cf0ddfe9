"""Baselines: the numbers that a recipe would have given, and a graph that still computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsim import simulate
from hwsim.measure.baselines import BASELINES, GROUP, baseline_layers, with_weights_of
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL, Net, Tokens, every_format, network
from vq import SSVQ, Int4, Int8, Recipe
from vq.container import Container, Layer, open_container, write_container
from vq.errors import ConfigError, WeightError
from vq.formats.grids import range_grid
from vq.formats.scalar_weights import ScalarWeight
from vq.integer import read_integer

BITS = {"int4": 4, "int3": 3, "int2": 2}


def twin(folder: Path, container: Container, method: str) -> Container:
    path = folder / f"{method}.vq.safetensors"
    write_container(path, baseline_layers(container, method))
    return open_container(path)


def test_int8_holds_the_same_integers_or_rounds_what_groups_scale(tmp_path: Path) -> None:
    with open_container(write(tmp_path / "mixed.vq.safetensors", every_format(1))) as container:
        with twin(tmp_path, container, "int8") as other:
            for entry in container.layers:
                name = entry.geometry.name
                if not entry.geometry.group:
                    assert np.array_equal(container.integers(name), other.integers(name))
                    continue
                wanted, found = container.weight(name), other.weight(name)
                outputs = tuple(range(1, wanted.ndim))
                step = np.abs(wanted).max(axis=outputs, keepdims=True) / 127
                assert (np.abs(wanted - found) <= 0.5001 * step).all()
                assert (np.abs(other.integers(name)).reshape(len(wanted), -1).max(1) == 127).all()


def require_as_by_recipe(layer: Layer, weight: torch.Tensor) -> None:
    """Equal, bit for bit, to what compressing the weight by a recipe stores."""
    g = layer.geometry
    made = ScalarWeight(g, weight, range_grid(matrix(weight, g.op), g))
    recipe = made.to_layer(g.name, *made.originals(weight))
    assert recipe.geometry == g and g.group == GROUP
    for field in ("stream", "group_scales"):
        assert np.array_equal(getattr(recipe, field), getattr(layer, field)), field


def matrix(weight: torch.Tensor, op: str) -> torch.Tensor:
    weight = weight.T if op == "linear_t" else weight
    return torch.movedim(weight, 1, -1).reshape(len(weight), -1)


@pytest.mark.parametrize("method", BITS)
def test_few_bits_are_those_of_a_recipe(tmp_path: Path, method: str) -> None:
    make = Maker(4)
    layers = [
        *every_format(2),
        make.vq("long", (10, 300), 4, 64),  # a last group that is not whole
        make.ssvq("conv", (16, 8, 3, 3), 4, 16, op="conv2d", axis="out"),
        make.vq("transposed", (24, 40), 8, 16, op="linear_t"),
    ]
    with open_container(write(tmp_path / "mixed.vq.safetensors", layers)) as container:
        for layer in baseline_layers(container, method):
            weight = torch.from_numpy(container.weight(layer.geometry.name))
            require_as_by_recipe(layer, weight)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-9, 1e-3, 1.0, 5e2]),
    st.sampled_from(["int4", "int2"]),
)
def test_any_size_of_weights(tmp_path_factory, seed: int, size: float, method: str) -> None:
    """Groups of zeros, scales below fp16's least number, one weight that dwarfs the others."""
    rng = np.random.default_rng(seed)
    integers = rng.integers(-128, 128, (6, 260)).astype(np.int8)
    integers[rng.integers(6)] = 0
    scale = (size * rng.uniform(0.1, 1, 6)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "any.vq.safetensors"
    write(path, [Layer.int8("fc", integers=integers, scale=scale)])
    with open_container(path) as container:
        (layer,) = baseline_layers(container, method)
        require_as_by_recipe(layer, torch.from_numpy(container.weight("fc")))


def test_weights_beyond_fp16(tmp_path: Path) -> None:
    integers = np.full((2, 4), 127, np.int8)
    layer = Layer.int8("fc", integers=integers, scale=np.float32([1, 1e5]))
    with open_container(write(tmp_path / "large.vq.safetensors", [layer])) as container:
        with pytest.raises(
            WeightError,
            match=r"^layer 'fc': weights must be at most 491280 for the fp16 scales of int4, not "
            r"1.27e\+07; leave int4 out of the methods$",
        ):
            baseline_layers(container, "int4")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe({"*": SSVQ(d=4, k=16, tile_outputs=8), "stem": Int8(tile_outputs=8)})
    return network(tmp_path_factory.mktemp("net"), Net(), (3, 13, 12), recipe)


def test_a_graph_means_the_same_with_other_weights(tmp_path: Path, net: Path) -> None:
    """Every value is what the real numbers behind it give, up to rounding."""
    with open_container(net) as container, twin(tmp_path, container, "int4") as other:
        model = read_integer(container)
        changed = with_weights_of(model, container, other)
        rng = np.random.default_rng(0)
        x = rng.integers(-128, 128, (2, *model.graph.input.shape)).astype(np.int8)
        values = changed.trace(x)
        for node in model.graph.nodes:
            if not node.layer:
                continue
            p, q = model.parameters[node.name], changed.parameters[node.name]
            real = container.weight(node.layer) / other.weight(node.layer).std()
            assert (
                q.group == GROUP
                and np.corrcoef(real.ravel(), other.weight(node.layer).ravel())[0, 1] > 0.9
            )
            # The sums of the largest inputs, in steps of the output, before rounding.
            ones = np.full(p.weight[0].size, 127.0)
            before = (p.weight.reshape(len(p.weight), -1) @ ones + p.bias) * ratio(p)
            scale = np.zeros((len(q.weight), p.weight[0].size))
            taps = p.weight[0][0].size
            for at in range(scale.shape[1]):
                channel, tap = divmod(at, taps)
                scale[:, at] = q.group_scale[:, (tap * p.weight.shape[1] + channel) // GROUP]
            sums = (q.weight.reshape(len(q.weight), -1) * scale) @ ones
            after = (sums * 2.0 ** -int(q.group_shift[0]) + q.bias) * ratio(q)
            coarse = np.abs(container.weight(node.layer) - other.weight(node.layer))
            unit = np.abs(ratio(p)) / np.broadcast_to(container.scale(node.layer), len(p.weight))
            slack = 127 * coarse.reshape(len(coarse), -1).sum(axis=1) * unit
            assert (np.abs(before - after) <= slack + 0.01 * np.abs(before) + 1).all(), node.name
        last = model.graph.output.name
        assert np.corrcoef(values[last].ravel(), model.trace(x)[last].ravel())[0, 1] > 0.5


def ratio(p) -> np.ndarray:
    return p.multiplier / 2.0 ** p.shift.astype(np.float64)


@pytest.mark.parametrize("kind", ["codebooks", "groups"])
def test_a_file_in_place_of_itself_changes_no_number(tmp_path: Path, net: Path, kind: str) -> None:
    if kind == "groups":
        net = network(tmp_path, Tokens(), (6, 32), Recipe({"*": Int4(tile_outputs=8, group=16)}))
    with open_container(net) as container:
        model = read_integer(container)
        for name, q in with_weights_of(model, container, container).parameters.items():
            p = model.parameters[name]
            assert np.array_equal(p.weight, q.weight) and np.array_equal(p.bias, q.bias)
            assert np.array_equal(p.group_scale, q.group_scale)
            assert ratio(q) == pytest.approx(ratio(p), rel=1e-12)


@pytest.mark.rtl
def test_networks_and_layers_run_in_every_baseline(net: Path) -> None:
    """Bit-exact, and counted alike by RTL and model."""
    document = simulate(net, config=SMALL, methods=BASELINES, check=True)
    runs = document["runs"]
    assert list(runs) == ["compressed", *BASELINES]
    assert all(run["bit_exact"] for run in runs.values())
    for name in BITS:
        methods = {row["method"] for row in runs[name]["layers"]}
        assert methods == {name, "none"}
    assert document["speedup"] == runs["int8"]["cycles"] / runs["compressed"]["cycles"]
    alone = simulate(net, config=SMALL, rows=3, methods=("int4",), check=True)
    assert all(run["bit_exact"] for run in alone["runs"].values())
    assert alone["speedup"] is None
    run = alone["runs"]["int4"]
    assert 8 * run["bytes_by"]["weights"] == 4 * sum(row["weights"] for row in run["layers"])


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, net: Path) -> None:
    with open_container(net) as container, twin(tmp_path, container, "int4") as other:
        model = read_integer(container)
        p = model.parameters["stem"]
        # The largest factor of a sum, whose steps now become larger.
        large = replace(p, multiplier=np.full_like(p.multiplier, 2**15 - 1), shift=p.shift * 0 + 1)
        huge = replace(model, parameters={**model.parameters, "stem": large})
        scale = container.scale("stem") * np.float32(2.0**-20)
        container.scale = lambda name: (
            scale if name == "stem" else type(container).scale(container, name)
        )
        with pytest.raises(ConfigError, match=r"^node 'stem' as int4: ratio must be finite and at"):
            with_weights_of(huge, container, other)
