"""The tokenizer in a file: the same one, in its place, and errors of one line."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vq
from signbook.data.carried import carried_by, carries, carry, stored
from signbook.data.texts import load_stories, load_wikitext2
from signbook.data.tokenizing import Words, of_scores
from signbook.data.words import words_of
from tests.signbook.data.test_tokenizing import TEXTS
from tests.signbook.shared import shared
from tests.signbook.writing.models import save_tokenizer
from tests.signbook.zoo.test_tokenizer import SMALL
from vq.container import Kept, open_container
from vq.container.copying import write_copy
from vq.container.tokenizer import tokenizer_facts
from vq.errors import ConfigError, ContainerError

OWN = of_scores(SMALL, "")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file with a graph, or what begins like one."""
    path = tmp_path_factory.mktemp("carried") / "small.vq.safetensors"
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.LayerNorm(8))
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}), progress=False)
    vq.save(model, path, progress=False)
    with open_container(path) as container:
        kept = {name: container.kept(name) for name in container.kept_names}
        write_copy(container, path, kept | {"_integer.graph": Kept("U8", (2,), b"{}")})
    carry(path, OWN)
    return path


@TEXTS
@given(text=st.text(alphabet="abc é\n", max_size=20) | st.text(max_size=8))
def test_merges_by_score_are_the_same(file, text):
    words = carried_by(file)
    assert words.encode(text) == SMALL.encode(text)
    assert words.decode(words.encode(text)) == SMALL.decode(SMALL.encode(text))


def test_where_it_lies_and_who_reads_past_it(file):
    with open_container(file) as container:
        assert container.kept_names[-2:] == ("_tokenizer", "_integer.graph")
        assert [n for n in container.kept_names if container.is_own(n)] == [
            "0.bias", "1.weight", "1.bias",
        ]  # fmt: skip
        facts = tokenizer_facts(container)["tokenizer"]
    assert facts["kind"] == "scores" and facts["bytes"] == len(stored(OWN))
    assert facts["name"].startswith("sha256:") and facts["name"] == carried_by(file).name
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.LayerNorm(8))
    vq.load(file, into=model, progress=False)
    before = file.read_bytes()
    carry(file, OWN)  # in place of the old one
    assert file.read_bytes() == before and carries(file)


def test_a_file_without_one(tmp_path, file):
    with open_container(file) as container:
        write_copy(container, tmp_path / "bare.vq.safetensors", {})
    bare = tmp_path / "bare.vq.safetensors"
    assert carried_by(bare) is None and not carries(bare)
    with pytest.raises(ConfigError, match="must carry a tokenizer, not none; name one"):
        words_of(str(bare))
    assert words_of(str(file)).encode("abc") == SMALL.encode("abc")


def test_a_folders_name_is_not_in_the_file(tmp_path):
    pytest.importorskip("transformers")
    save_tokenizer(tmp_path)
    words = words_of(str(tmp_path))
    assert words.name == str(tmp_path) and json.loads(stored(words))["name"] == ""
    with pytest.raises(ConfigError, match=r"^tokenizer 'slow' must be a fast one to be stored"):
        stored(Words(str, str, name="slow"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "must be an object of version 1"),
        ({"kind": "words"}, "must have kind tokenizers or scores, and the fields of its kind"),
        ({"more": 1}, "the fields of its kind alone"),
        ({"name": 3}, "name must be a string"),
        ({"ends": [-1]}, "ends must be tokens"),
        ({"unknown": True}, "unknown must be a token or null"),
        ({"ends": [5]}, "ends must be 1 and 2"),
        ({"pieces": ["€"]}, "pieces must be strings of characters up to"),
        ({"pieces": [], "scores": []}, "tokens 3 to 258 must be the single bytes"),
        ({"scores": [0.0]}, "scores must be as many as pieces"),
        ({"scores": [float("nan")] * len(SMALL)}, "scores must be finite"),
        (None, "must be JSON"),
    ],
)
def test_damage_is_one_error(file, tmp_path, change, said):
    raw = b"\xff" if change is None else json.dumps(json.loads(stored(OWN)) | change).encode()
    bad = tmp_path / "bad.vq.safetensors"
    with open_container(file) as container:
        write_copy(container, bad, {"_tokenizer": Kept.from_numpy(np.frombuffer(raw, np.uint8))})
    with pytest.raises(ContainerError, match=rf"bad.vq.safetensors: tensor '_tokenizer': .*{said}"):
        carried_by(bad)


def test_a_tensor_of_another_type(file, tmp_path):
    bad = tmp_path / "bad.vq.safetensors"
    with open_container(file) as container:
        write_copy(container, bad, {"_tokenizer": Kept("I32", (1, 1), bytes(4))})
    with pytest.raises(ContainerError, match=r"must be U8 \[bytes\], not I32 \[1, 1\]"):
        carried_by(bad)


def test_a_model_has_none_of_that_name():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    model.register_buffer("_tokenizer", torch.zeros(1))
    with pytest.raises(ConfigError, match="model must not hold '_tokenizer', which is a file's"):
        vq.plan(model, vq.Recipe({"*": vq.Int8()}))


@pytest.fixture(scope="module", params=["stories260k", "minilm", "smollm2"])
def real(request, file, tmp_path_factory):
    """A tokenizer of the zoo, and the same through a file."""
    shared("stories260K/tok512.bin")
    try:
        own = words_of(request.param)
    except ConfigError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("real") / "real.vq.safetensors"
    path.write_bytes(file.read_bytes())
    carry(path, own)
    return own, carried_by(path)


def test_the_zoos_tokenizers_read_real_texts_as_before(real):
    shared("wikitext2/valid.txt")
    own, carried = real
    texts = [*load_stories()[:6], *load_wikitext2()[:40:4], "", "日本 é🦀\n\t <s> [SEP]"]

    @TEXTS
    @given(st.data())
    def same(data):
        text = data.draw(st.sampled_from(texts))
        start = data.draw(st.integers(0, len(text)))
        part = text[start : start + data.draw(st.integers(0, 400))]
        tokens = own.encode(part)
        assert carried.encode(part) == tokens
        assert carried.decode(tokens) == own.decode(tokens)

    same()
    assert (carried.name, carried.ends, carried.unknown) == (own.name, own.ends, own.unknown)
