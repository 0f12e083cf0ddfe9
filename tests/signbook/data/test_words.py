"""Tokenizers by name."""

import pytest

from signbook.data.words import tokenizer_of, words_for, words_in, words_of
from tests.signbook.shared import shared
from tests.signbook.writing.models import save_tokenizer
from vq.errors import ConfigError


def test_a_folder_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    save_tokenizer(tmp_path)
    words = words_of(str(tmp_path))
    tokens = words.encode("a é  b .")
    assert words.decode([256, *tokens, 257]) == "a é  b ."
    assert words.ends == {257} and words.unknown == 258


def test_that_of_the_stories():
    shared("stories260K/tok512.bin")
    words = words_of("stories260k")
    assert words.encode("Once upon")[0] == 1
    assert words.decode(words.encode("Once upon")) == "Once upon"
    assert words.ends == {1, 2}


def test_models_have_theirs():
    assert tokenizer_of("hf:some/folder") == "some/folder"
    assert tokenizer_of("py:signbook.zoo.llama:stories260k?x=1") == "stories260k"
    assert tokenizer_of("py:signbook.zoo.smollm2:smollm2") == "smollm2"
    assert tokenizer_of("py:signbook.zoo.minilm:minilm") == "minilm"
    for name in ("hf:", "py:a:b", "timm:deit_tiny"):
        with pytest.raises(ConfigError, match="must have a tokenizer, and its name tells none; gi"):
            tokenizer_of(name)


def test_a_folder_without_one(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=r"^tokenizer '.*': must be in a local folder or cache"):
        words_of(str(tmp_path))


def test_what_a_file_is_to_carry(tmp_path):
    pytest.importorskip("transformers")
    assert words_for("timm:deit_tiny", None) is None  # nothing that is known
    assert words_for(f"hf:{tmp_path}", None) is None
    save_tokenizer(tmp_path)
    assert words_for(f"hf:{tmp_path}", None).ends == {257}
    assert words_for(f"hf:{tmp_path}", "none") is None
    assert words_for("timm:deit_tiny", str(tmp_path)).ends == {257}
    assert words_in(None, f"hf:{tmp_path}", None).ends == {257}
    with pytest.raises(ConfigError, match=r"^tokenizer"):
        words_for(f"hf:{tmp_path}", str(tmp_path / "none"))
