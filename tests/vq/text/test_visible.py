"""Texts on one line."""

import pytest

from vq.text.visible import visible


@pytest.mark.parametrize("text", ["", "fc[q]", ":smile:", "層 é", "'\"$#\\"])
def test_what_shows_stays(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x7f\t", r"\x9b2J\x7f\t"),
        ("\udcff\u202e\u200b", r"\udcff\u202e\u200b"),
    ],
)
def test_what_does_not_show_is_an_escape(text, shown):
    assert visible(text) == shown
