"""The documents that a report is made of, read: one error names the file and the field."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import Field

from hwsim.measure.checked import Checked
from hwsim.measure.document import Measurement
from hwsim.sweep.document import Sweep
from signbook.reporting.evaluated import Evaluated
from vq.errors import ConfigError
from vq.text.fields import refusal

__all__ = ["Document", "read_document"]

T = TypeVar("T", bound=pydantic.BaseModel)

#: Where pydantic found something else than JSON.
_AT = re.compile(r"line \d+ column \d+")
#: Problems that one error lists.
_LISTED = 5

Document = Measurement | Sweep | Evaluated
_KINDS: dict[str, type[Document]] = {
    "signbook.simulate/1": Measurement,
    "signbook.simulate/2": Measurement,
    "signbook.sweep/1": Sweep,
    "signbook.eval/1": Evaluated,
}


class _Tag(Checked):
    kind: str = Field(alias="schema")


def read_document(path: Path) -> Document:
    """Read a document, whichever it is by its schema.

    Raises
    ------
    ConfigError
        If it cannot be read, is no JSON or of no known schema, or a field is missing, has another
        type, is NaN or does not fit the others. The message names the file and the field.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: must be a readable file, but {error.strerror}") from None
    kind = _read(path, _Tag, text).kind
    if kind not in _KINDS:
        raise ConfigError(f"{path}: schema must be one of {', '.join(_KINDS)}, not {kind!r}")
    return _read(path, _KINDS[kind], text)


def _read(path: Path, kind: type[T], text: bytes) -> T:
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError as error:
        problems = [_problem(dict(item)) for item in error.errors(include_url=False)]
        more = len(problems) - _LISTED
        listed = "; ".join(problems[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
        raise ConfigError(f"{path}: {listed}") from None


def _problem(item: Mapping[str, Any]) -> str:
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"]).lstrip(".")
    if item["type"] == "json_invalid":
        found = _AT.search(item["msg"])
        return f"must be JSON, but it is none from here on ({found[0] if found else 'line 1'})"
    if item["type"] == "value_error":
        what = str(item["ctx"]["error"])
        return f"{place}: {what}" if place else what
    return f"{place or 'it'} {refusal(item)}"
