"""In the container: written, read, and damaged in every way that a reader must see."""

import copy
import json

import numpy as np
import pytest

import vq
from tests.golden import make, release
from tests.vq.diffusion import STEPS, met
from tests.vq.integer.steps.networks import made, rounded, stored
from vq.container import ConfigError, ContainerError, Kept, open_container, write_container
from vq.container.copying import layer_of
from vq.integer import read_integer
from vq.integer.steps import has_steps, read_steps, store_steps
from vq.integer.steps.build import integerize_steps

#: What the golden file gives at each of its steps.
CALLS = {
    "900": "508827670077f629742559f105c9f6317edd6c683dca1c6cf78b0ae9e621ea4b",
    "600": "b67b9a06f0fe893642f7a56e5122a1bb51461b9fe9025aeff2fe7ff59558c4dc",
    "300": "6b9bc06940c914fe06a8d31aaeb4a88f6b60d4d1f86cd86f2cee2be453ab601b",
    "50": "7c9e3612e4e5f7d50127052cc9ae3920678109b469cb6a6f805f2db5d297973c",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return stored("unet", tmp_path_factory.mktemp("unet"))[0]


def changed(file, out, **tensors):
    """A copy with other tensors of the graph; None leaves one out, functions change one."""
    with open_container(file) as container:
        kept = {name: container.kept(name) for name in container.kept_names}
        for name, change in tensors.items():
            name = name.removeprefix("../") if name.startswith("../") else f"_integer.{name}"
            if change is None:
                del kept[name]
            else:
                kept[name] = change(kept.get(name))
        layers = [layer_of(container, entry.geometry.name) for entry in container.layers]
        write_container(out, layers, kept, container.provenance)
    return out


def test_the_file_holds_model_and_graph(file, tmp_path):
    with open_container(file) as container:
        assert has_steps(container)
        assert {part.kind for part in container.runtime} == {
            "clock",
            "timed_rounding",
            "time_table",
        }
        model = read_steps(container)
        again = tmp_path / "again.vq.safetensors"
        store_steps(container, model, again)
    assert again.read_bytes() == file.read_bytes()
    vq.load(file, into=made("unet"))  # as without a graph
    assert model.graph.times == STEPS


def test_norms_read_what_the_model_has_anyway(file, tmp_path):
    with open_container(file) as container:
        graph = read_steps(container).graph
        norms = {n.name: n for n in graph.nodes if n.op == "group_norm"}
        assert norms["down_0_norm1"].settings["module"] == "down.0.norm1"
        assert "_integer.down_0_norm1.eps" in container.kept_names
        assert "_integer.down_0_norm1.weight" not in container.kept_names
    other = Kept("BF16", (8,), bytes(16))
    path = changed(
        file, tmp_path / "x.vq.safetensors", **{"../down.0.norm1.weight": lambda _: other}
    )
    with open_container(path) as container, pytest.raises(ContainerError, match="must be F32"):
        read_steps(container)


def test_norms_have_copies_where_the_model_has_another_type(tmp_path):
    path = tmp_path / "unet.vq.safetensors"
    vq.save(rounded("unet"), path)
    model = vq.load(path, into=made("unet")).eval()
    with open_container(path) as container:
        container.kept_shapes["down.0.norm1.weight"] = "BF16", (8,)
        built = integerize_steps(model, container, met(model, count=1), classes=4)
        modules = {n.name: n.settings["module"] for n in built.graph.nodes if n.op == "group_norm"}
        assert (modules["down_0_norm1"], modules["down_0_norm2"]) == ("", "down.0.norm2")
        out = tmp_path / "with.vq.safetensors"
        container.kept_shapes["down.0.norm1.weight"] = "F32", (8,)
        store_steps(container, built, out)
    with open_container(out) as container:
        assert "_integer.down_0_norm1.weight" in container.kept_names
        read = read_steps(container).tensors["down_0_norm1"]
    assert np.array_equal(read["weight"], built.tensors["down_0_norm1"]["weight"])


def test_the_golden_file_is_written_and_read_as_ever(tmp_path):
    path = tmp_path / "turns.vq.safetensors"
    make.write_turns(path)
    assert path.read_bytes() == make.TURNS.read_bytes()
    with open_container(make.TURNS) as container:
        container.verify()
        assert container.layout == "vqstream/1"
        assert release.calls(container) == CALLS


def test_readers_of_other_graphs_refuse_it(file):
    with open_container(file) as container, pytest.raises(ConfigError, match="not of time steps"):
        read_integer(container)


def test_a_file_without_a_graph_is_told_what_to_do(file, tmp_path):
    names = [n for n in open_container(file).kept_names if n.startswith("_integer.")]
    gone = {name.removeprefix("_integer."): None for name in names}
    path = changed(file, tmp_path / "x.vq.safetensors", **gone)
    with open_container(path) as container:
        assert not has_steps(container)
        with pytest.raises(ContainerError, match="run: signbook integer"):
            read_steps(container)


def floats(change):
    def apply(kept):
        values = np.frombuffer(kept.data, "<f4").reshape(kept.shape).copy()
        change(values)
        return Kept.from_numpy(values)

    return apply


def text(change):
    def apply(kept):
        found = json.loads(kept.data)
        change(found)
        raw = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return Kept.from_numpy(np.frombuffer(raw.encode(), np.uint8))

    return apply


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"scales": floats(lambda v: v.__setitem__((0, 3), 0))}, "scales'?: must be positive"),
        ({"scales": floats(lambda v: v.__setitem__((0, 3), np.nan))}, "must be finite"),
        ({"scales": floats(lambda v: v.__imul__(np.float32(1)).__setitem__((0, 2), 1e-30))},
         "scales at time step 900 must fit each other"),
        ({"scales": lambda kept: Kept("F32", (1,), bytes(4))}, "must be F32"),
        ({"down.0.conv1.group_shift": lambda kept: Kept("U8", (1,), b"\xc8")},
         "group_shift must be 0 to 31, not 200"),
        ({"down.0.conv1.group_scale": lambda kept: Kept("I16", kept.shape, b"\x00\x80" * 8)},
         "group_scale must be at least -32767"),
        ({"down.0.conv1.unit": floats(lambda v: v.fill(1e30))}, "at time step 900 must fit"),
        ({"first.unit": None}, "'_integer.first.unit': must be in the file"),
        ({"first.more": lambda kept: Kept("F32", (1,), bytes(4))}, "must belong to a node"),
        ({"graph": text(lambda g: g.update(times=[1, 1]))}, "times must be at least one"),
        ({"graph": text(lambda g: g.update(version=4))}, "version must be 3, not '4'"),
    ],
)  # fmt: skip
def test_damage_is_seen(file, tmp_path, tensors, message):
    path = changed(file, tmp_path / "x.vq.safetensors", **tensors)
    with open_container(path) as container, pytest.raises(ContainerError, match=message):
        read_steps(container)


def test_other_parts_at_run_time_are_refused(file):
    with open_container(file) as container:
        part = copy.copy(container.runtime[0])
        object.__setattr__(part, "kind", "transform")
        container.runtime = (part,)
        with pytest.raises(ConfigError, match="nothing but scales and tables of steps"):
            read_steps(container)
