"""The tokenizer that a file carries: the kept tensor ``_tokenizer``.

The layout is in ``docs/spec-vqstream-1.md``, section 11.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from signbook.data.tokenizing import Words, of_library, of_scores
from signbook.zoo.tokenizer import Tokenizer, check_pieces
from vq.container import ConfigError, Container, ContainerError, FilePlan, Kept, open_container
from vq.container.constants import INTEGER_PREFIX, TOKENIZER
from vq.container.copying import write_copy
from vq.container.tokenizer import LIBRARY, VERSION, read_tokenizer

__all__ = ["carried_by", "carries", "carry", "is_container", "read_words", "stored"]


def is_container(name: str) -> bool:
    """Whether the name of a tokenizer is that of a file which may carry one."""
    return name.endswith(".safetensors")


def stored(words: Words) -> bytes:
    """Bytes of the tensor: the same for the same tokenizer.

    Raises
    ------
    ConfigError
        If no file can hold the tokenizer.
    """
    if words.content is None:
        raise ConfigError(
            f"tokenizer {words.name!r} must be a fast one to be stored, which one of transformers' "
            "own in Python is not; give --tokenizer another, or none"
        )
    # A folder's name is a matter of this machine.
    name = "" if Path(words.name).exists() else words.name
    facts: dict[str, Any] = {"version": VERSION, "name": name, "ends": sorted(words.ends)}
    facts |= {"unknown": words.unknown, **words.content()}
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def carry(path: str | os.PathLike[str], words: Words) -> FilePlan:
    """Put a tokenizer into a file, in place of any that it has.

    Raises
    ------
    ConfigError
        As :func:`stored`.
    ContainerError, OutputError
        If the file is damaged, or cannot be written; it is intact then.
    """
    own = Kept.from_numpy(np.frombuffer(stored(words), np.uint8))
    with open_container(path) as container:
        kept = {n: container.kept(n) for n in container.kept_names if n != TOKENIZER}
        graph = {n: tensor for n, tensor in kept.items() if n.startswith(INTEGER_PREFIX)}
        others = {n: tensor for n, tensor in kept.items() if n not in graph}
        return write_copy(container, path, others | {TOKENIZER: own} | graph)


def carries(path: str | os.PathLike[str]) -> bool:
    """Whether a file carries a tokenizer, which may be damaged.

    Raises
    ------
    ContainerError
        If the file is damaged.
    """
    with open_container(path) as container:
        return TOKENIZER in container.kept_names


def carried_by(path: str | os.PathLike[str]) -> Words | None:
    """The tokenizer that a file carries, if any.

    Raises
    ------
    ContainerError
        If the file or the tokenizer is damaged.
    ConfigError
        If the library that reads it is missing, or too old.
    """
    with open_container(path) as container:
        return read_words(container)


def read_words(container: Container) -> Words | None:
    """The tokenizer that an open file carries, if any; errors as :func:`carried_by`."""
    facts = read_tokenizer(container)
    if facts is None:
        return None
    if facts["kind"] == LIBRARY:
        ends = frozenset(facts["ends"])
        return of_library(facts["tokenizer"], ends, facts["unknown"], facts["name"])
    pieces = [piece.encode("latin-1") for piece in facts["pieces"]]
    if problem := check_pieces(pieces):
        raise ContainerError(f"{container.path}: tensor {TOKENIZER!r}: {problem}")
    return of_scores(Tokenizer(pieces, facts["scores"]), facts["name"])
