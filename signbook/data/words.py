"""Tokenizers by name."""

from typing import Any

from signbook.data.carried import carried_by, is_container
from signbook.data.files import data_file
from signbook.data.tokenizing import Words, of_scores, of_transformers
from signbook.extras import require
from vq.errors import ConfigError

__all__ = [
    "MINILM", "NONE", "SMOLLM2", "STORIES", "tokenizer_of", "words_for", "words_in", "words_of",
]  # fmt: skip

STORIES, SMOLLM2, MINILM = "stories260k", "smollm2", "minilm"
#: What names no tokenizer: a file is to carry none.
NONE = "none"
#: Models that bring no tokenizer by their own names.
_OF_MODELS = {
    "py:signbook.zoo.llama:stories260k": STORIES,
    "py:signbook.zoo.smollm2:smollm2": SMOLLM2,
    "py:signbook.zoo.minilm:minilm": MINILM,
}


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
            f"{STORIES}, {SMOLLM2}, {MINILM}, a folder or id of transformers, or a file that "
            "carries one"
        )
    return found


def words_of(name: str) -> Words:
    """The tokenizer of a name.

    That is "stories260k", "smollm2", "minilm", a ``*.vq.safetensors`` file that carries one, or
    what transformers can load: a folder or an id.

    Raises
    ------
    ConfigError
        If it cannot be had.
    ContainerError
        If the file is damaged.
    """
    if is_container(name):
        if (found := carried_by(name)) is None:
            raise ConfigError(
                f"{name}: must carry a tokenizer, not none; name one, such as {STORIES}, or make "
                "the file again with --tokenizer"
            )
        return found
    if name == STORIES:
        from signbook.zoo.tokenizer import load_tokenizer

        return of_scores(load_tokenizer(data_file("stories260K/tok512.bin")), name)
    return of_transformers(_of_transformers(name), name)


def words_for(model: str, wanted: str | None) -> Words | None:
    """The tokenizer that a file of a model is to carry: the ``wanted`` one, else the model's.

    None if "none" is wanted, or the model has none that a file could hold.

    Raises
    ------
    ConfigError, ContainerError
        If the wanted one cannot be had.
    """
    if wanted is not None:
        return None if wanted == NONE else words_of(wanted)
    try:
        found = words_of(tokenizer_of(model))
    except ConfigError:
        return None
    return found if found.content is not None else None


def words_in(file: Any, model: str, wanted: str | None) -> Words:
    """The tokenizer that texts of a file's model are to be read by.

    That is the ``wanted`` one, else that which the ``file``, if there is one, carries, else the
    model's.

    Raises
    ------
    ConfigError, ContainerError
        If it cannot be had.
    """
    carried = carried_by(file) if file is not None and wanted is None else None
    return carried or words_of(wanted or tokenizer_of(model))


def _of_transformers(name: str) -> Any:
    """A tokenizer of transformers: SmolLM2's, MiniLM's, that of a GGUF, or another."""
    from signbook.zoo.gguf import gguf_in, gguf_tokenizer
    from signbook.zoo.hub import quiet_transformers
    from signbook.zoo.minilm import minilm_tokenizer
    from signbook.zoo.smollm2 import smollm2_tokenizer

    if name == SMOLLM2:
        return smollm2_tokenizer()
    if name == MINILM:
        return minilm_tokenizer()
    if file := gguf_in(name):
        return gguf_tokenizer(file)
    transformers = require("transformers", extra="lm", purpose=f"tokenizer {name!r}")
    with quiet_transformers(f"tokenizer {name!r}"):
        return transformers.AutoTokenizer.from_pretrained(name)
