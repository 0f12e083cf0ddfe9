"""Tokenizers: from text to tokens and back, and what a file has to say of one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from signbook.extras import require
from signbook.zoo.tokenizer import Tokenizer
from vq.container.tokenizer import LIBRARY, SCORES
from vq.errors import ConfigError

__all__ = ["Words", "of_library", "of_scores", "of_transformers"]


@dataclass(frozen=True)
class Words:
    """A tokenizer.

    Attributes
    ----------
    encode : callable
        Tokens of a text, the first of which starts a text where the tokenizer has such.
    decode : callable
        Text of tokens, without those that only start or end one.
    ends : frozenset of int
        Tokens behind which a text is over.
    unknown : int or None
        The token of whatever there is none for, if it is that alone.
    name : str
        By which perplexities say what they were measured with.
    content : callable, optional
        What :func:`signbook.data.carried.carry` stores, by its kind: nothing that changes with
        time or place. None if no file can hold the tokenizer.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int] = frozenset()
    unknown: int | None = None
    name: str = ""
    content: Callable[[], Mapping[str, Any]] | None = None


def of_scores(own: Tokenizer, name: str) -> Words:
    """A tokenizer of the stories' kind: merges by score, single bytes for all else."""

    def content() -> dict[str, Any]:
        pieces = [piece.decode("latin-1") for piece in own.pieces]  # a character for every byte
        return {"kind": SCORES, "pieces": pieces, "scores": list(own.scores)}

    return Words(own.encode, own.decode, frozenset((1, 2)), 0, name, content)


def of_library(
    written: Mapping[str, Any], ends: frozenset[int], unknown: int | None, name: str
) -> Words:
    """A tokenizer of the library ``tokenizers``, from its own JSON.

    Raises
    ------
    ConfigError
        If the library is missing, or cannot read it.
    """
    subject = f"tokenizer {name!r}"
    library = require("tokenizers", extra="lm", purpose=subject)
    try:
        own = library.Tokenizer.from_str(json.dumps(written))
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        first = str(error).partition("\n")[0]
        raise ConfigError(
            f"{subject}: must be one that the installed tokenizers reads, but {first}; update it"
        ) from error

    def encode(text: str) -> list[int]:
        found: list[int] = own.encode(text).ids
        return found

    def decode(tokens: Sequence[int]) -> str:
        text: str = own.decode(list(tokens), skip_special_tokens=True)
        return text

    return Words(
        encode, decode, ends, unknown, name, lambda: {"kind": LIBRARY, "tokenizer": written}
    )


def of_transformers(known: Any, name: str) -> Words:
    """A tokenizer of transformers."""

    def encode(text: str) -> list[int]:
        found: list[int] = known(text, verbose=False)["input_ids"]
        return found

    def decode(tokens: Sequence[int]) -> str:
        text: str = known.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def content() -> dict[str, Any]:
        written = json.loads(known.backend_tokenizer.to_str())
        # What rows of many texts were cut and filled to is of no meaning to one text.
        return {"kind": LIBRARY, "tokenizer": written | {"truncation": None, "padding": None}}

    ends = frozenset([] if known.eos_token_id is None else [known.eos_token_id])
    others = (known.bos_token_id, known.eos_token_id, known.pad_token_id)
    unknown = None if known.unk_token_id in others else known.unk_token_id
    fast = getattr(known, "is_fast", False)
    return Words(encode, decode, ends, unknown, name, content if fast else None)
