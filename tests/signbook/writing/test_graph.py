"""Integer graphs that write: what they read, and texts by the door that other models have."""

import pytest

from signbook.data.tokenizing import Words
from signbook.writing.door import write
from signbook.writing.graph import load_writer
from tests.vq.integer.tokens.models import CONTEXT, WORDS, stored
from vq.container import account, open_container
from vq.errors import ConfigError
from vq.integer.tokens.writing import continued

LETTERS = Words(lambda text: [ord(c) - 64 for c in text], lambda t: "".join(map(str, t)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graph")


@pytest.fixture(scope="module")
def writer(folder):
    return load_writer(stored("llama", folder)[0])


def test_a_graph_writes_through_the_same_door(writer):
    found = write(writer, LETTERS, "ABC", tokens=5)
    assert found.tokens == list(continued(writer.model, [1, 2, 3], 5))
    assert (found.prompt_tokens, found.stopped) == (3, "tokens")
    assert write(writer, LETTERS, "ABC", tokens=50).stopped == "context"
    drawn = [write(writer, LETTERS, "AB", temperature=9.0, seed=s).tokens for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == CONTEXT - 2
    last = Words(LETTERS.encode, LETTERS.decode, frozenset(found.tokens[1:2]))
    assert write(writer, last, "ABC", tokens=5).stopped == "end"


def test_bytes_of_a_token_are_those_of_the_layers(writer, folder):
    with open_container(folder / "llama.vq.safetensors") as container:
        layers = account([entry.geometry for entry in container.layers])
    # The table, of which the file has no layer, is the output layer, too.
    assert writer.bytes_per_token == sum(one.total_bytes for one in layers) + WORDS * 16
    with pytest.raises(ConfigError, match="must leave room in the model's context of 12 tokens"):
        write(writer, LETTERS, CONTEXT * "A")
