"""The stories tokenizer against hand-made vocabularies and its file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signbook.zoo.tokenizer import Tokenizer, load_tokenizer
from tests.signbook.shared import shared
from vq.errors import ConfigError

SPECIAL = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % i for i in range(256))]
#: Single characters, then merges with the scores below; "ab" is better than "bc" and "abc".
PIECES = [*SPECIAL, b" ", b"a", b"b", b"c", b"ab", b"bc", b"abc"]
SCORES = [0.0] * 263 + [-1.0, -2.0, -3.0]
SMALL = Tokenizer(PIECES, SCORES)
SPACE, A, B, C, AB, BC, ABC = range(259, 266)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("a", [SPACE, A]),
        ("abc", [SPACE, ABC]),  # "ab" first, then "abc"
        ("bc", [SPACE, BC]),
        ("abab", [SPACE, AB, AB]),
        ("é", [SPACE, 0xC3 + 3, 0xA9 + 3]),  # not a piece: its bytes
        ("a\n", [SPACE, A, 0x0A + 3]),
    ],
)
def test_encode(text, tokens):
    assert SMALL.encode(text, bos=False) == tokens
    assert SMALL.encode(text) == [1, *tokens]
    assert SMALL.decode([1, *tokens]) == text


def greedy(tokenizer, text):
    """The definition, in quadratic time: merge the best pair, the leftmost of equals, again."""
    ids = tokenizer.encode("", bos=False)
    for character in " " + text:
        ids += tokenizer._single(character)
    while True:
        pairs = [
            (-tokenizer.scores[union], i, union)
            for i in range(len(ids) - 1)
            if (
                union := tokenizer._ids.get(tokenizer.pieces[ids[i]] + tokenizer.pieces[ids[i + 1]])
            )
            is not None
        ]
        if not pairs:
            return ids
        _, i, union = min(pairs)
        ids[i : i + 2] = [union]


@given(st.text(alphabet="abc é", min_size=1, max_size=30))
def test_merging_is_greedy(text):
    assert SMALL.encode(text, bos=False) == greedy(SMALL, text)
    assert SMALL.decode(SMALL.encode(text)) == text


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(shared("stories260K/tok512.bin"))


def test_real_vocabulary(tokenizer):
    text = 'Once upon a time, "Zoë" said: hello!\nThe end.'
    tokens = tokenizer.encode(text)
    assert len(tokenizer) == 512 and tokens[0] == 1
    assert tokenizer.decode(tokens) == text
    assert tokens[1:] == greedy(tokenizer, text)
    assert len(tokens) < len(text) / 1.5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw[:-1], "must hold 512 tokens, but token 511 is cut or too long"),
        (lambda raw: raw[:2], "but token 0 is cut"),
        (lambda raw: raw + b"\0", "must hold 512 tokens, not more"),
        (
            lambda raw: raw[:8] + b"\xff\xff\xff\xff" + raw[12:],
            "token 0 is cut or too long$",
        ),
        (lambda raw: raw.replace(b"<0x41>", b"<0x42>"), "must be the single bytes"),
    ],
)
def test_damaged_vocabulary(tmp_path, edit, message):
    path = tmp_path / "tok.bin"
    path.write_bytes(edit(shared("stories260K/tok512.bin").read_bytes()))
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(path)


def test_missing_vocabulary(tmp_path):
    with pytest.raises(ConfigError, match="must be a readable file"):
        load_tokenizer(tmp_path / "absent.bin")
