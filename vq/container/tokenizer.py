"""What a file says of its tokenizer: the JSON of the kept tensor ``_tokenizer``, checked.

The layout is in ``docs/spec-vqstream-1.md``, section 11.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from vq.container.constants import TOKENIZER
from vq.container.reader import Container
from vq.errors import ContainerError

__all__ = ["LIBRARY", "SCORES", "VERSION", "read_tokenizer", "tokenizer_facts"]

VERSION = 1
#: Kinds of tokenizers: those of the library ``tokenizers``, and merges by score.
LIBRARY, SCORES = "tokenizers", "scores"
_COMMON = {"version", "kind", "name", "ends", "unknown"}
_FIELDS = {LIBRARY: {*_COMMON, "tokenizer"}, SCORES: {*_COMMON, "pieces", "scores"}}


def tokenizer_facts(container: Container) -> dict[str, Any]:
    """What documents say of the tokenizer of an open file; empty if it carries none.

    Raises
    ------
    ContainerError
        If it is damaged.
    """
    found = read_tokenizer(container)
    if found is None:
        return {}
    size = len(container.kept(TOKENIZER).data)
    return {"tokenizer": {"kind": found["kind"], "name": found["name"], "bytes": size}}


def read_tokenizer(container: Container) -> dict[str, Any] | None:
    """Fields of the tokenizer of an open file, under a name that tells it from others.

    None if the file carries none.

    Raises
    ------
    ContainerError
        If it is damaged.
    """
    if TOKENIZER not in container.kept_names:
        return None
    tensor = container.kept(TOKENIZER)
    where = f"{container.path}: tensor {TOKENIZER!r}"
    if tensor.dtype != "U8" or len(tensor.shape) != 1:
        raise ContainerError(
            f"{where}: must be U8 [bytes], not {tensor.dtype} {list(tensor.shape)}"
        )
    facts = _facts(tensor.data, where)
    digest = hashlib.sha256(tensor.data).hexdigest()
    return facts | {"name": facts["name"] or f"sha256:{digest[:12]}"}


def _facts(data: bytes, where: str) -> dict[str, Any]:
    def refuse(requirement: str) -> NoReturn:
        raise ContainerError(f"{where}: {requirement}; the file is damaged, or of a later version")

    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError):
        refuse("must be JSON")
    if not isinstance(found, dict) or found.get("version") != VERSION:
        refuse(f"must be an object of version {VERSION}")
    if found.get("kind") not in _FIELDS or set(found) != _FIELDS[found["kind"]]:
        refuse(f"must have kind {' or '.join(_FIELDS)}, and the fields of its kind alone")
    if not isinstance(found["name"], str):
        refuse("name must be a string")
    ends, unknown = found["ends"], found["unknown"]
    if not isinstance(ends, list) or not all(map(_is_token, ends)):
        refuse("ends must be tokens")
    if unknown is not None and not _is_token(unknown):
        refuse("unknown must be a token or null")
    if found["kind"] == LIBRARY:
        if not isinstance(found["tokenizer"], Mapping):
            refuse("tokenizer must be an object")
    elif problem := _problem_of_scores(found["pieces"], found["scores"]):
        refuse(problem)
    elif (set(ends), unknown) != ({1, 2}, 0):
        refuse("ends must be 1 and 2, and unknown 0, with kind 'scores'")
    return found


def _is_token(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _problem_of_scores(pieces: object, scores: object) -> str | None:
    if not isinstance(pieces, list) or not all(
        isinstance(piece, str) and all(character <= "\xff" for character in piece)
        for piece in pieces
    ):
        return "pieces must be strings of characters up to U+00FF, one for each byte"
    if not isinstance(scores, list) or len(scores) != len(pieces):
        return "scores must be as many as pieces"
    if not all(isinstance(s, float | int) and abs(s) < 1e38 for s in scores):  # false for NaN
        return "scores must be finite"
    return None
