"""Graphs of tokens in containers: what is written is read, what is wrong is refused by name."""

import json

import numpy as np
import pytest

from tests.golden import make
from tests.vq.integer.test_store import rewrite
from tests.vq.integer.tokens import naive
from tests.vq.integer.tokens.models import data, stored, texts
from vq.container import ConfigError, ContainerError, Kept, open_container
from vq.integer import read_integer
from vq.integer.tokens import has_tokens, read_tokens, store_tokens


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return stored("llama", tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("name", ["llama", "vision", "encoder"])
@pytest.mark.parametrize("operands", ["int8", "rows"])
def test_what_is_written_is_read(tmp_path, name, operands):
    path, _, model = stored(name, tmp_path, operands=operands)
    with open_container(path) as file:
        assert has_tokens(file)
        read = read_tokens(file)
        again = tmp_path / "again.vq.safetensors"
        store_tokens(file, read, again)
    assert read.graph == model.graph
    assert again.read_bytes() == path.read_bytes()
    if name == "vision":
        image = data(name)[:3].numpy()
        codes = read.quantize(image)
        assert np.array_equal(codes, model.quantize(image))
        assert np.array_equal(read.run(codes), model.run(codes))
    else:
        assert np.array_equal(read.run(texts().numpy()), model.run(texts().numpy()))


#: What the golden file's graph gives for words 3, 0, 5, 1, 2.
GOLDEN = [
    [-355, -101, -520, 104, 173, -246],
    [196, -19, -36, 108, 126, -71],
    [83, -114, 264, 304, 95, -308],
    [142, 6, 603, -499, -368, 295],
    [-531, -87, 103, -28, 67, 299],
]


def test_the_golden_file_is_written_read_and_run_as_ever(tmp_path):
    path = tmp_path / "tokens.vq.safetensors"
    make.write_tokens(path)
    assert path.read_bytes() == make.TOKENS.read_bytes()
    with open_container(make.TOKENS) as container:
        container.verify()
        assert container.layout == "vqstream/1"
        model = read_tokens(container)
    assert model.run(np.array([[3, 0, 5, 1, 2]]))[0].tolist() == GOLDEN
    assert naive.forward(make.TOKENS, [3, 0, 5, 1, 2])["head"] == GOLDEN


def test_other_readers_refuse_it_by_what_it_is(case):
    path, _, _ = case
    with (
        open_container(path) as file,
        pytest.raises(ConfigError, match="must be of a convolutional network, not of a"),
    ):
        read_integer(file)


def test_a_file_without_a_graph_is_refused(case, tmp_path):
    path, _, _ = case

    def bare(kept):
        for name in [n for n in kept if n.startswith("_integer.")]:
            del kept[name]

    with (
        open_container(rewrite(path, tmp_path, bare)) as file,
        pytest.raises(ContainerError, match="must hold an integer graph, not none"),
    ):
        read_tokens(file)


def put(name, array):
    def change(kept):
        assert f"_integer.{name}" in kept
        kept[f"_integer.{name}"] = Kept.from_numpy(array)

    return change


def drop(name):
    def change(kept):
        del kept[f"_integer.{name}"]

    return change


NORM = "blocks.0.attn_norm.rms_norm"


@pytest.mark.parametrize("change,message", [
    (put("blocks.0.attn.rotary.shift", np.array([0], np.uint8)), "shift must be 1 to 47, not 0"),
    (put("blocks.0.add.multiplier", np.array([1, -32768], np.int16)), "multiplier must be -32767"),
    (put(f"{NORM}.epsilon", np.array([0], np.int64)), "epsilon must be 1 to"),
    (put(f"{NORM}.bias", np.full(16, 2**31 - 1, np.int32)), "bias must be"),
    (put(f"{NORM}.bias", np.zeros(3, np.int32)), r"must be I32 \[16\], not I32 \[3\]"),
    (put("blocks.0.attn.wo.bias", np.full(16, 2**31 - 1, np.int32)), "must fit int32"),
    (put("blocks.0.attn.wo.shift", np.full(16, 48, np.uint8)), "shift must be 1 to 47"),
    (put("blocks.0.attn.attention.multiplier", np.array([1, -1, 1], np.int16)), "0 or more"),
    (put("blocks.0.attn.angles.sine", np.full((12, 2), -32768, np.int16)), "sine must be -32767"),
    (put("blocks.0.ffn.silu.entries", np.full(257, 32767, np.int16)), "entries must be -32639"),
    (put("scales", np.zeros(3, np.float32)), r"must be F32 \[\d+\]"),
    (drop("embed.weight"), "'_integer.embed.weight': must be in the file"),
    (drop("blocks.0.attn.wq.group_scale"), "must be in the file"),
    (lambda kept: kept.update({"_integer.spare": Kept.from_numpy(np.zeros(1, np.uint8))}),
     "'_integer.spare': must belong to a node"),
])  # fmt: skip
def test_damaged_numbers_are_refused(case, tmp_path, change, message):
    path, _, _ = case
    with (
        open_container(rewrite(path, tmp_path, change)) as file,
        pytest.raises(ContainerError, match=message),
    ):
        read_tokens(file)


def test_scales_must_be_positive(case, tmp_path):
    path, _, model = case
    change = put("scales", np.zeros(len(model.graph.nodes), np.float32))
    with (
        open_container(rewrite(path, tmp_path, change)) as file,
        pytest.raises(ContainerError, match="must be positive"),
    ):
        read_tokens(file)


def test_a_sum_of_two_digits_that_could_overflow_is_refused(case, tmp_path):
    path, _, _ = case

    def widened(kept):
        found = json.loads(kept["_integer.graph"].data)
        for node in found["nodes"]:
            if node["name"].startswith("blocks.0.ffn.mul"):
                node["form"] = "int16"
        kept["_integer.graph"] = Kept.from_numpy(
            np.frombuffer(json.dumps(found).encode(), np.uint8)
        )
        room = 2**31 - 1 - 2**22  # enough beside int8, not beside int16
        kept["_integer.blocks.0.ffn.w2.bias"] = Kept.from_numpy(np.full(16, room, np.int32))

    with (
        open_container(rewrite(path, tmp_path, widened)) as file,
        pytest.raises(ContainerError, match=r"blocks.0.ffn.w2.*must fit int32"),
    ):
        read_tokens(file)
