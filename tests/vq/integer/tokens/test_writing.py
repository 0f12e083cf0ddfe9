"""Tokens that a graph writes with its cache: those of the whole text read again."""

import numpy as np
import pytest

from tests.vq.integer.tokens.models import CONTEXT, WORDS, stored
from vq.container import open_container
from vq.errors import ConfigError, ContainerError
from vq.integer.tokens import read_tokens
from vq.integer.tokens.writing import continued, require_writer, vocabulary_of


@pytest.fixture(scope="module", params=["int8", "rows"])
def model(request, tmp_path_factory):
    path, *_ = stored("llama", tmp_path_factory.mktemp("writing"), operands=request.param)
    with open_container(path) as container:
        return read_tokens(container)


def test_the_cache_changes_no_token(model):
    prompt = [3, 1, 4]
    found = list(continued(model, prompt, CONTEXT - 3))
    text = list(prompt)
    for token in found:
        logits = model.run(np.array([text]))[0, -1]
        assert token == int(np.flatnonzero(logits == logits.max())[0])
        text.append(token)
    assert len(found) == CONTEXT - 3 and len(set(found)) > 2
    assert list(continued(model, prompt, 2, lambda logits: int(logits.argmin()))) != found[:2]


def test_what_has_no_room_or_is_unknown(model):
    with pytest.raises(ContainerError, match="must be at most 12, its context, not 3 and 10"):
        list(continued(model, [1, 2, 3], 10))
    with pytest.raises(ContainerError, match="tokens must be 0 to 29"):
        list(continued(model, [WORDS], 1))
    assert vocabulary_of(model) == WORDS


@pytest.mark.parametrize("kind", ["encoder", "vision"])
def test_what_continues_no_text(kind, tmp_path):
    path, *_ = stored(kind, tmp_path)
    with (
        open_container(path) as container,
        pytest.raises(ConfigError, match="must be of a causal language model, which gives a"),
    ):
        require_writer(read_tokens(container))
