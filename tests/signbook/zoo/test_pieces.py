"""Byte pairs: what is united, in which order, and that text comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signbook.zoo.pieces import Pieces
from vq.errors import ConfigError

TEXT = "the\nthen\nthe\nthem\nthat\nthis\ncat\nsat"


def unions(text: str, count: int = 1) -> list[str]:
    return Pieces(text, 96 + count).pieces[96:]


def test_the_most_common_pair_is_united_first_and_again_as_a_whole():
    assert unions(TEXT, 3) == ["th", "the", "at"]


def test_a_piece_holds_no_space_but_at_its_start():
    assert unions("a b a b a b") == [" b"]
    assert unions("b a b a b a b a", 4) == [" a", " b"]


def test_a_piece_holds_no_line_end():
    assert unions("x\nx\nx\nx") == []


def test_a_piece_is_not_united_with_itself():
    assert unions("aaaa") == []


def test_a_short_text_has_fewer_pieces_than_asked_for():
    assert len(Pieces("ab", 512)) == 97


@given(st.text(st.sampled_from("the catmn\n~"), max_size=60))
def test_any_text_comes_back(text):
    pieces = Pieces(TEXT, 110)
    assert pieces.decode(pieces.encode(text)) == text


def test_texts_are_read_by_the_order_of_learning():
    pieces = Pieces(TEXT, 99)
    assert [pieces.pieces[i] for i in pieces.encode("that the")] == ["th", "at", " ", "the"]


@pytest.mark.parametrize("text", ["café", "tab\t"])
def test_other_characters_are_refused(text):
    message = r"^text must hold printable ASCII and line ends, not '(é|\\t)'; leave it out$"
    with pytest.raises(ConfigError, match=message):
        Pieces(text, 100)
    with pytest.raises(ConfigError, match=message):
        Pieces("ab", 100).encode(text)
