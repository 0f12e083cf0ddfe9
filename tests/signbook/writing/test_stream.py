"""Text of tokens as they come."""

from collections.abc import Sequence

from signbook.writing.stream import Stream


def shown(text: str, tokens: Sequence[int], prompt: Sequence[int] = (65,)) -> list[str]:
    """What is shown of tokens, each of which is a byte."""
    pieces: list[str] = []
    stream = Stream(lambda t: bytes(t).decode(errors="replace"), prompt, pieces.append)
    for token in tokens:
        stream.add(token)
    stream.end()
    assert stream.text == "".join(pieces) == text
    return pieces


def test_characters_are_whole():
    assert shown("é層!", "é層!".encode()) == ["é", "層", "!"]
    assert shown("x\ufffd", [*b"x", 0xE5]) == ["x", "\ufffd"]  # the end of the text cuts it


def test_a_space_that_only_a_text_begins_without_is_kept():
    """As tokenizers do that put a space before a text and take it away again."""

    def decode(tokens: Sequence[int]) -> str:
        return "".join((" a", " b", "c")[token] for token in tokens).removeprefix(" ")

    pieces: list[str] = []
    stream = Stream(decode, [0], pieces.append)
    for token in (1, 2, 1):
        stream.add(token)
    stream.end()
    assert pieces == [" b", "c", " b"]


def test_tokens_without_text_show_nothing():
    pieces: list[str] = []
    stream = Stream(lambda t: "".join(chr(x) for x in t if x), [65], pieces.append)
    for token in (66, 0, 0, 67, 0):
        stream.add(token)
    stream.end()
    assert pieces == ["B", "C"]


def test_it_decodes_few_tokens_at_a_time():
    longest = 0

    def decode(tokens: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return bytes(tokens).decode(errors="replace")

    stream = Stream(decode, range(32, 96), lambda piece: None)
    for token in range(40, 90):
        stream.add(token)
    assert longest <= 5 and stream.text == bytes(range(40, 90)).decode()
