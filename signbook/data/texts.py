"""Texts, and batches of their tokens."""

import re
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from signbook.data.files import data_file
from vq.errors import ConfigError

__all__ = [
    "detokenized",
    "load_stories",
    "load_wikitext2",
    "masked_batches",
    "sentences_of",
    "token_batches",
]

_STORY_START = re.compile(r"Once upon|One day|There was")
#: How WikiText spaces its words, and how they are written; in this order.
_SPACING = (
    (r" @([-,.])@ ", r"\1"),  # within words and numbers
    (r"(?<==) (?==)", ""),  # of headings
    (r'" ([^"\n]*?) "', r'"\1"'),
    (r" (?='(?:s|t|m|re|ve|ll|d)\b)", ""),
    (r"(?<=s) (?=' )", ""),  # of many
    (r"(?<= )' ([^'\n]*?) '(?= )", r"'\1'"),
    (r" (?=[.,;:!?%)\]°′″])", ""),
    (r"(?<=[(\[$£]) ", ""),
    (r"(?m)^ +| +$", ""),
)  # fmt: skip


def load_stories() -> list[str]:
    """Stories of the TinyStories validation text, paragraphs joined by one newline.

    The file does not mark where a story ends: one starts here with every paragraph that begins
    with "Once upon", "One day" or "There was", as in the figures published for it.
    """
    text = data_file("tinystories_text/tinystories_val_*.txt").read_text(encoding="utf-8")
    stories: list[list[str]] = []
    for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
        if not stories or _STORY_START.match(paragraph):
            stories.append([])
        stories[-1].append(paragraph)
    return ["\n".join(story) for story in stories]


def load_wikitext2() -> list[str]:
    """Paragraphs of the WikiText-2 validation text, headings left out."""
    text = data_file("wikitext2/valid.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("=")]


def detokenized(text: str) -> str:
    """A text in the spacing of WikiText, written as it was before it was cut into words.

    Where a mark can be read in two ways, such as a single quote, it is guessed from its line.

    >>> detokenized(" = = Size = = \\n It is 5 @.@ 4 @-@ inch ( 14 cm ) , red . \\n")
    '== Size ==\\nIt is 5.4-inch (14 cm), red.\\n'
    """
    for spaced, written in _SPACING:
        text = re.sub(spaced, written, text)
    return text


def sentences_of(paragraphs: Sequence[str], limit: int | None = None) -> list[str]:
    """Sentences of 8 to 60 words, each once, in the order of the text."""
    found: dict[str, None] = {}
    for paragraph in paragraphs:
        for sentence in re.split(r"(?<= [.!?]) (?=[A-Z\"'])", paragraph):
            if 8 <= len(sentence.split()) <= 60:
                found[sentence.strip()] = None
                if len(found) == limit:
                    return list(found)
    return list(found)


def token_batches(
    rows: Sequence[Sequence[int]], *, batch: int, length: int, filler: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Pad rows of tokens at the right, for :class:`signbook.tasks.LanguageModelling`.

    Parameters
    ----------
    rows : sequence of token lists
        Each starts with a token that is given, not predicted.
    batch : int
        Rows in a batch.
    length : int
        Tokens of a row that are kept.
    filler : int
        Token that fills short rows; it is never scored.

    Returns
    -------
    list of (tokens [B, T] int64, scored [B, T] bool)
    """
    if batch < 1 or length < 2:
        raise ConfigError(f"batch must be positive and length 2 or more, not {batch} and {length}")
    cut = [list(row[:length]) for row in rows if len(row) > 1]
    batches = []
    for start in range(0, len(cut), batch):
        chosen = cut[start : start + batch]
        longest = max(map(len, chosen))
        tokens = torch.full((len(chosen), longest), filler, dtype=torch.int64)
        scored = torch.zeros((len(chosen), longest), dtype=torch.bool)
        for i, row in enumerate(chosen):
            tokens[i, : len(row)] = torch.tensor(row)
            scored[i, 1 : len(row)] = True
        batches.append((tokens, scored))
    return batches


def masked_batches(
    rows: Sequence[Sequence[int]], frame: Sequence[int], *, batch: int, length: int
) -> list[dict[str, Tensor]]:
    """Pad rows of tokens at the right, as inputs of an encoder.

    Parameters
    ----------
    rows : sequence of token lists
    frame : sequence of int
        Tokens of an empty text: what ends a row remains where it is cut.
    batch : int
        Rows in a batch.
    length : int
        Tokens that a row may have.

    Returns
    -------
    list of {"input_ids": [B, T] int64, "attention_mask": [B, T] int64}
    """
    found = []
    for start in range(0, len(rows), batch):
        chosen = [_cut(row, frame, length) for row in rows[start : start + batch]]
        longest = max(map(len, chosen))
        filled = [[*row, *[0] * (longest - len(row))] for row in chosen]
        masks = [[1] * len(row) + [0] * (longest - len(row)) for row in chosen]
        found.append({"input_ids": torch.tensor(filled), "attention_mask": torch.tensor(masks)})
    return found


def _cut(row: Sequence[int], frame: Sequence[int], length: int) -> list[int]:
    if len(row) <= length:
        return list(row)
    begin = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(row, frame, strict=False))
    )
    end = frame[begin:]
    return [*row[: length - len(end)], *end]
