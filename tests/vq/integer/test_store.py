"""Integer graphs in containers: what is written is read, what is wrong is refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vq
from tests.golden import make
from tests.vq.container.samples import KEPT, one_of_each
from tests.vq.integer.models import GROUPED, SHAPES, Small, inputs, stored
from vq.container import ContainerError, Kept, open_container, write_container
from vq.container.copying import layer_of
from vq.integer import IntegerModel, add_integer, read_integer, store_integer


def small(folder: Path) -> tuple[Path, torch.nn.Module, IntegerModel]:
    return stored(Small, folder)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return small(tmp_path_factory.mktemp("integer"))


def rewrite(path: Path, folder: Path, change) -> Path:
    """Copy a container with its kept tensors changed; every hash is right."""
    with open_container(path) as file:
        kept = {name: file.kept(name) for name in file.kept_names}
        change(kept)
        layers = [layer_of(file, entry.geometry.name) for entry in file.layers]
        out = folder / "changed.vq.safetensors"
        write_container(out, layers, kept, file.provenance)
    return out


def refused(path: Path, message: str) -> None:
    with open_container(path) as file, pytest.raises(ContainerError) as error:
        read_integer(file)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_what_is_written_is_read(case):
    path, _, model = case
    with open_container(path) as file:
        file.verify()
        found = read_integer(file)
    assert found.graph == model.graph
    assert found.graph.to_json() == model.graph.to_json()
    for field in ("gain", "offset", "scales"):
        assert np.array_equal(getattr(found, field), getattr(model, field))
    assert found.parameters.keys() == model.parameters.keys()
    for name, want in model.parameters.items():
        for field in ("multiplier", "shift", "bias", "weight"):
            a, b = getattr(found.parameters[name], field), getattr(want, field)
            assert a.dtype == b.dtype and np.array_equal(a, b), (name, field)


def test_the_model_itself_is_untouched(case, tmp_path):
    """Weights, kept tensors and provenance are as they were; loading ignores the graph."""
    path, dense, model = case
    again = tmp_path / "again.vq.safetensors"
    with open_container(path) as file:
        store_integer(file, model, again)
        with open_container(again) as copied:
            assert copied.provenance == file.provenance
            assert [e.geometry for e in copied.layers] == [e.geometry for e in file.layers]
            assert copied.kept_names == file.kept_names
    assert again.read_bytes() == path.read_bytes()
    for name, tensor in vq.load(again, into=Small()).state_dict().items():
        assert torch.equal(tensor, dense.state_dict()[name])


def test_every_kind_of_layer_is_copied_as_it_is(tmp_path):
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [s.layer for s in one_of_each()], KEPT)
    assert rewrite(path, tmp_path, lambda kept: None).read_bytes() == path.read_bytes()
    with open_container(make.FILE) as file:  # with a codebook in ROM
        layers = [layer_of(file, entry.geometry.name) for entry in file.layers]
        kept = {name: file.kept(name) for name in file.kept_names}
        write_container(path, layers, kept, file.provenance)
    assert path.read_bytes() == make.FILE.read_bytes()


def test_a_second_graph_replaces_the_first(case, tmp_path):
    path, _, model = case
    out = tmp_path / "second.vq.safetensors"
    again = add_integer(path, Small(), inputs(Small), out=out, choice="percentile")
    assert (model.graph.choice, again.graph.choice) == ("max", "percentile")
    with open_container(out) as file:
        assert read_integer(file).graph == again.graph


def test_a_file_without_graph_says_how_to_get_one(tmp_path):
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [s.layer for s in one_of_each()])
    refused(path, "must hold an integer graph, not none; run: signbook integer")


GRAPH = "_integer.graph"


def edited(change):
    """Change the parsed graph."""

    def apply(kept):
        found = json.loads(kept[GRAPH].data)
        nodes = {node["name"]: node for node in found["nodes"]}
        change(found, nodes)
        data = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
        kept[GRAPH] = Kept("U8", (len(data),), data)

    return apply


def field(name, key, value):
    return edited(lambda found, nodes: nodes[name].__setitem__(key, value))


def cycle(found, nodes):
    nodes["depth"]["inputs"] = ["group"]


def twice(found, nodes):
    found["nodes"].insert(2, dict(nodes["stem"]))


HOSTILE = {
    "not JSON": (lambda k: k.update({GRAPH: Kept("U8", (1,), b"{")}), "must be valid JSON"),
    "not an object": (lambda k: k.update({GRAPH: Kept("U8", (2,), b"[]")}), "must have exactly"),
    "dtype": (lambda k: k.update({GRAPH: Kept("I8", (2,), b"{}")}), "must be U8"),
    "float": (field("x", "shape", [2.0, 9, 7]), "must hold no number like"),
    "version": (edited(lambda f, n: f.update(version=2)), "must be 1, because no layer has groups"),
    "other version": (edited(lambda f, n: f.update(version=9)), "must be 1 or 2, not '9'"),
    "no version": (edited(lambda f, n: f.update(version=True)), "must be 1 or 2, not 'True'"),
    "choice": (edited(lambda f, n: f.update(choice="best")), "choice must be one of max"),
    "calibration": (edited(lambda f, n: f.update(calibration="")), "must be a sha256"),
    "no nodes": (edited(lambda f, n: f.update(nodes=[])), "must hold 2 to 65536 nodes"),
    "node": (edited(lambda f, n: f.update(nodes=[1, 2])), "must be an object with a name"),
    "unknown field": (field("stem", "speed", 1), "node 'stem': field 'speed' is unknown"),
    "missing field": (edited(lambda f, n: n["stem"].pop("relu")), "field 'relu' is missing"),
    "type": (field("stem", "relu", 1), "node 'stem': relu must be of its type, not 1"),
    "bool for int": (field("stem", "groups", True), "groups must be of its type"),
    "op": (field("add", "op", "softmax"), "node 'add': op must be one of"),
    "cycle": (edited(cycle), "node 'depth': inputs must be names of earlier nodes, not 'group'"),
    "self": (field("stem", "inputs", ["stem"]), "inputs must be names of earlier nodes"),
    "two inputs": (field("stem", "op", "input"), "op must be input in the first node only"),
    "duplicate": (edited(twice), "node 'stem': name must be unique"),
    "arity": (field("add", "inputs", ["stem"]), "node 'add': inputs must be 2 names"),
    "layer": (field("stem", "layer", "absent"), "layer must be a layer of the file"),
    "layer of add": (field("add", "layer", "stem"), "layer must be empty"),
    "kind of layer": (field("fc", "layer", "stem"), "layer must be a linear of 12 inputs"),
    "shape": (field("down", "shape", [12, 3, 2]), "node 'down': shape must be [12, 2, 3]"),
    "shape of all": (field("x", "shape", [2**20, 2**20, 9]), "node 'x': shape must be 1 to"),
    "empty": (field("x", "shape", [0, 9, 7]), "shape must be 1 to"),
    "negative": (field("x", "shape", [-2, -9, 7]), "node 'x': shape must be 1 to"),
    "stride": (field("stem", "stride", [0, 1]), "stride must be 1 to 65535"),
    "rank": (field("stem", "stride", [1]), "stride must be 2 entries"),
    "padding": (field("stem", "padding", [[1, 2**60], [2, 2]]), "padding and channels must be 0"),
    "large padding": (field("stem", "padding", [[60000, 0], [60000, 0]]), "must be small enough"),
    "negative padding": (field("stem", "padding", [[-1, 1], [2, 2]]), "padding and channels"),
    "pairs": (field("stem", "padding", [[1], [2, 2]]), "padding must be of its type"),
    "groups": (field("depth", "groups", 3), "groups must be such that 8 channels give 8"),
    "no groups": (field("depth", "groups", 0), "groups must be positive"),
    "channels": (field("pad", "channels", [1]), "channels must be (before, after)"),
    "kernel": (field("pool", "kernel", [100, 3]), "kernel must be at most the padded input"),
    "pool padding": (field("pool", "padding", [[2, 2], [1, 1]]), "at most half of the kernel"),
    "stray kernel": (field("stem", "kernel", [3, 3]), "kernel must be empty for conv"),
    "relu of a pool": (field("pool", "relu", True), "node 'pool': relu must be false"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_graphs_are_refused(case, tmp_path, what):
    change, message = HOSTILE[what]
    refused(rewrite(case[0], tmp_path, change), message)


def values(name, array):
    return lambda kept: kept.update({name: Kept.from_numpy(array)})


NUMBERS = {
    "shift too large": (
        values("_integer.add.shift", np.uint8([48])), "shift must be 1 to 47, not 48 to 48",
    ),
    "shift zero": (values("_integer.add.shift", np.uint8([0])), "shift must be 1 to 47"),
    "multiplier": (
        values("_integer.add.multiplier", np.int16([1, -(2**15)])), "must be at least -32767",
    ),
    "multiplier shape": (
        values("_integer.add.multiplier", np.int16([1])), "must be I16 [2], not I16 [1]",
    ),
    "multiplier dtype": (
        values("_integer.add.multiplier", np.int32([1, 1])), "must be I16 [2], not I32 [2]",
    ),
    "overflow": (
        values("_integer.fc.bias", np.int32([0, 0, 2**31 - 1, 0, 0, 0])),
        "node 'fc': accumulator of output 2 must fit int32",
    ),
    "least bias": (
        values("_integer.fc.bias", np.int32([-(2**31), 0, 0, 0, 0, 0])), "must fit int32",
    ),
    "scale": (
        lambda k: k.update({"_integer.scales": Kept("F32", k["_integer.scales"].shape,
                            bytes(len(k["_integer.scales"].data)))}), "must be positive",
    ),
    "gain": (values("_integer.x.gain", np.float32([1, np.nan])), "must be finite"),
    "absent": (lambda k: k.pop("_integer.fc.bias") and None, "'_integer.fc.bias': must be in the"),
    "stray": (values("_integer.more", np.uint8([1])), "'_integer.more': must belong to a node"),
}  # fmt: skip


@pytest.mark.parametrize("what", NUMBERS)
def test_impossible_numbers_are_refused(case, tmp_path, what):
    change, message = NUMBERS[what]
    refused(rewrite(case[0], tmp_path, change), message)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_on_accumulators_is_exact(case, tmp_path, sign):
    path = case[0]
    with open_container(path) as file:
        most = 128 * np.abs(file.integers("fc").astype(int)).sum(axis=1)
    bias = sign * (2**31 - 1 - most)
    name = "_integer.fc.bias"
    with open_container(rewrite(path, tmp_path, values(name, bias.astype(np.int32)))) as file:
        assert read_integer(file).parameters["fc"].bias.tolist() == bias.tolist()
    bias[3] += sign
    message = "accumulator of output 3 must fit int32, but can reach 2147483648"
    refused(rewrite(path, tmp_path, values(name, bias.astype(np.int32))), message)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    return stored(Small, tmp_path_factory.mktemp("grouped"), recipe=GROUPED[Small])


def test_graphs_with_groups_are_read_as_written(grouped):
    path, _, model = grouped
    with open_container(path) as file:
        file.verify()
        found = read_integer(file)
        names = [n for n in file.kept_names if n.startswith("_integer.down.")]
    assert found.graph == model.graph and found.graph.version == 2
    assert json.loads(found.graph.to_json())["version"] == 2
    assert names == [
        f"_integer.down.{f}" for f in ("multiplier", "shift", "bias", "group_scale", "group_shift")
    ]
    for name, want in model.parameters.items():
        for field in ("multiplier", "shift", "bias", "weight", "group_scale", "group_shift"):
            a, b = getattr(found.parameters[name], field), getattr(want, field)
            assert a.dtype == b.dtype and np.array_equal(a, b), (name, field)
        assert found.parameters[name].group == want.group
    assert model.parameters["down"].group_scale.shape == (12, 4)


def test_graphs_without_groups_are_what_they_were(case):
    """Version 1 with the same tensors, whatever version 2 adds."""
    path, _, model = case
    with open_container(path) as file:
        assert json.loads(file.kept(GRAPH).data)["version"] == 1
        assert not any("group_" in name for name in file.kept_names)
    assert model.graph.version == 1


DOWN = "_integer.down.group_scale"
GROUP_NUMBERS = {
    "version": (edited(lambda f, n: f.update(version=1)), "must be 2, because a layer has groups"),
    "no scales": (lambda k: k.pop(DOWN) and None, f"'{DOWN}': must be in the"),
    "no shift": (lambda k: k.pop("_integer.fc.group_shift") and None, "group_shift': must be in"),
    "shape": (values(DOWN, np.ones((4, 12), np.int16)), "must be I16 [12, 4], not I16 [4, 12]"),
    "dtype": (values(DOWN, np.ones((12, 4), np.int8)), "must be I16 [12, 4], not I8 [12, 4]"),
    "scale": (
        values(DOWN, np.full((12, 4), -(2**15), np.int16)), "group_scale must be at least -32767",
    ),
    "shift": (
        values("_integer.down.group_shift", np.uint8([32])), "group_shift must be 0 to 31, not 32",
    ),
    "overflow": (
        values("_integer.down.bias", np.full(12, 2**31 - 1, np.int32)),
        "node 'down': accumulator of output",
    ),
    "stray": (values("_integer.add.group_shift", np.uint8([1])), "must belong to a node"),
}  # fmt: skip


@pytest.mark.parametrize("what", GROUP_NUMBERS)
def test_impossible_groups_are_refused(grouped, tmp_path, what):
    change, message = GROUP_NUMBERS[what]
    refused(rewrite(grouped[0], tmp_path, change), message)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_on_rescaled_sums_is_exact(grouped, tmp_path, sign):
    """The most that the spec's formula gives fits; one step more of bias is refused."""
    path = grouped[0]
    with open_container(path) as file:
        weight = np.abs(file.integers("down").astype(int)).reshape(12, 4, 8).sum(axis=2)
        p = read_integer(file).parameters["down"]
    t, scale = int(p.group_shift[0]), np.abs(p.group_scale.astype(int))
    most = ((128 * weight * scale + (2**t >> 1)) >> t).sum(axis=1)
    bias = sign * (2**31 - 1 - most)
    name = "_integer.down.bias"
    with open_container(rewrite(path, tmp_path, values(name, bias.astype(np.int32)))) as file:
        assert read_integer(file).parameters["down"].bias.tolist() == bias.tolist()
    bias[3] += sign
    message = "accumulator of output 3 must fit int32, but can reach 2147483648"
    refused(rewrite(path, tmp_path, values(name, bias.astype(np.int32))), message)


def test_running_a_graph_needs_no_torch(case):
    path, _, model = case
    images = np.random.default_rng(0).random((2, *SHAPES[Small])).astype(np.float32)
    code = f"""
import sys
sys.modules["torch"] = sys.modules["faiss"] = None
import numpy as np, vq.integer
from vq.container import open_container
images = np.random.default_rng(0).random((2, {", ".join(map(str, SHAPES[Small]))}))
with open_container({str(path)!r}) as file:
    print(vq.integer.run(file, images.astype(np.float32)).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == model.run(model.quantize(images)).tolist()
