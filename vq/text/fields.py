"""What a field of a document must be, said in one way, whoever checks it."""

import reprlib
from collections.abc import Mapping
from typing import Any

__all__ = ["refusal"]

#: By the kinds of pydantic's errors, or how those begin.
_MUST = {
    "int": "be a whole number",
    "float": "be a number",
    "finite_number": "be a finite number",
    "bool": "be true or false",
    "string_pattern": "be a text of its form",
    "string": "be a text",
    "list": "be a list",
    "tuple": "be a list",
    "dict": "be an object",
    "model": "be an object",
    "dataclass": "be an object",
    "none": "be null",
    "literal": "be {expected}",
    "greater_than_equal": "be at least {ge}",
    "greater_than": "be above {gt}",
    "less_than_equal": "be at most {le}",
    "less_than": "be below {lt}",
    "too_short": "hold at least {min_length}, not {actual_length}",
    "too_long": "hold at most {max_length}, not {actual_length}",
    "missing": "be there",
    "extra": "not be there",
    "unexpected": "not be there",
}
#: Kinds whose texts need no word of what was given.
_WHOLE = ("too_short", "too_long", "missing", "extra", "unexpected")


def refusal(item: Mapping[str, Any]) -> str:
    """What the field of one of pydantic's errors must be, and what was given.

    Parameters
    ----------
    item : mapping
        Of ``ValidationError.errors()``.

    Examples
    --------
    >>> refusal({"type": "int_parsing", "input": "x"})
    "must be a whole number, not 'x'"
    """
    kind = item["type"]
    found = next((text for start, text in _MUST.items() if kind.startswith(start)), None)
    must = "be what its documentation says" if found is None else found
    must = must.format_map(item.get("ctx") or {})
    if kind.startswith(_WHOLE):
        return f"must {must}"
    return f"must {must}, not {_SHORT.repr(item['input'])}"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
