"""Tokenizers of the library, as themselves and through a file's JSON."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signbook.data.tokenizing import Words, of_library, of_scores, of_transformers
from tests.signbook.zoo.test_tokenizer import SMALL
from vq.errors import ConfigError

TEXTS = settings(derandomize=True, deadline=None, max_examples=30)


def wordpiece():
    """A small tokenizer of words, whose rows are cut and filled as MiniLM's are."""
    tokenizers = pytest.importorskip("tokenizers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", ".", "##a", "b"]
    own = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    own.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    own.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    own.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    own.decoder = tokenizers.decoders.WordPiece()
    own.enable_truncation(4)
    own.enable_padding(length=8)
    return pytest.importorskip("transformers").PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


def again(words: Words) -> Words:
    content = words.content()
    return of_library(content["tokenizer"], words.ends, words.unknown, words.name)


def test_a_tokenizer_of_words_knows_what_it_does_not():
    words = again(of_transformers(wordpiece(), "small"))
    assert words.encode("The cats sat, the b.") == [2, 4, 5, 6, 7, 1, 4, 10, 8, 3]  # neither cut
    assert words.decode([2, 4, 5, 6, 3, 0]) == "the cats"
    assert words.unknown == 1 and words.ends == frozenset() and words.encode("") == [2, 3]


@TEXTS
@given(st.lists(st.sampled_from(["the", "Cats", "sat", "b.", "é", "\n", " ", "[SEP]", "x"])))
def test_the_library_alone_does_what_transformers_does(parts):
    own = of_transformers(wordpiece(), "small")
    text = " ".join(parts)
    assert again(own).encode(text) == own.encode(text)
    assert again(own).decode(own.encode(text)) == own.decode(own.encode(text))


def test_what_a_file_says_of_the_stories_kind_is_bytes_as_characters():
    content = of_scores(SMALL, "small").content()
    assert content["kind"] == "scores" and content["scores"] == list(SMALL.scores)
    assert content["pieces"][:4] == ["<unk>", "<s>", "</s>", "<0x00>"]


def test_what_the_library_cannot_read():
    pytest.importorskip("tokenizers")
    with pytest.raises(ConfigError, match=r"^tokenizer 'x': must be one that the installed token"):
        of_library({"version": "1.0", "model": {"type": "New"}}, frozenset(), None, "x")
