"""Tokenizers by name: from text to tokens and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from signbook.data.files import data_file
from signbook.extras import require
from vq.errors import ConfigError

__all__ = ["SMOLLM2", "STORIES", "Words", "tokenizer_of", "words_of"]

STORIES, SMOLLM2 = "stories260k", "smollm2"
#: Models that bring no tokenizer by their own names.
_OF_MODELS = {
    "py:signbook.zoo.llama:stories260k": STORIES,
    "py:signbook.zoo.smollm2:smollm2": SMOLLM2,
}


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
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int] = frozenset()
    unknown: int | None = None


def tokenizer_of(model: str) -> str:
    """Name of the tokenizer that belongs to a model, both as the command line has them.

    Raises
    ------
    ConfigError
        If it cannot be told.
    """
    kind, _, rest = model.partition(":")
    if kind == "hf" and rest:
        return rest
    found = _OF_MODELS.get(model.partition("?")[0])
    if found is None:
        raise ConfigError(
            f"{model}: must have a tokenizer, and its name tells none; give --tokenizer "
            f"{STORIES}, {SMOLLM2}, or a folder or id of transformers"
        )
    return found


def words_of(name: str) -> Words:
    """The tokenizer of a name: "stories260k", "smollm2", or what transformers can load.

    Raises
    ------
    ConfigError
        If it cannot be had.
    """
    if name == STORIES:
        from signbook.zoo.tokenizer import load_tokenizer

        own = load_tokenizer(data_file("stories260K/tok512.bin"))
        return Words(own.encode, own.decode, frozenset((1, 2)), 0)
    known = _of_transformers(name)

    def encode(text: str) -> list[int]:
        found: list[int] = known(text, verbose=False)["input_ids"]
        return found

    def decode(tokens: Sequence[int]) -> str:
        text: str = known.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    ends = frozenset([] if known.eos_token_id is None else [known.eos_token_id])
    others = (known.bos_token_id, known.eos_token_id, known.pad_token_id)
    return Words(encode, decode, ends, None if known.unk_token_id in others else known.unk_token_id)


def _of_transformers(name: str) -> Any:
    """A tokenizer of transformers: SmolLM2's, that of a GGUF, or another."""
    from signbook.zoo.gguf import gguf_in, gguf_tokenizer
    from signbook.zoo.hub import quiet_transformers
    from signbook.zoo.smollm2 import smollm2_tokenizer

    if name == SMOLLM2:
        return smollm2_tokenizer()
    if file := gguf_in(name):
        return gguf_tokenizer(file)
    transformers = require("transformers", extra="lm", purpose=f"tokenizer {name!r}")
    with quiet_transformers(f"tokenizer {name!r}"):
        return transformers.AutoTokenizer.from_pretrained(name)
