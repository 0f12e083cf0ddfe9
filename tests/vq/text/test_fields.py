"""Errors of pydantic in our words."""

from typing import Annotated, Literal

import pydantic
import pytest
from pydantic import Field

from vq.text.fields import refusal


class Sample(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

    whole: Annotated[int, Field(ge=1, le=9)] = 1
    above: Annotated[int, Field(gt=0, lt=9)] = 1
    real: float = 0.0
    truth: bool = False
    text: str = ""
    choice: Literal["a", "b"] = "a"
    rows: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    names: dict[str, int] = {}
    inner: "Sample | None" = None
    nothing: None = None
    day: Annotated[str, Field(pattern="^x")] = "x"
    when: Annotated[bytes, Field()] = b""
    needed: int


@pytest.mark.parametrize(
    ("field", "given", "text"),
    [
        ("whole", "x", "must be a whole number, not 'x'"),
        ("whole", 2.5, "must be a whole number, not 2.5"),
        ("whole", None, "must be a whole number, not None"),
        ("whole", 0, "must be at least 1, not 0"),
        ("whole", 10, "must be at most 9, not 10"),
        ("above", 0, "must be above 0, not 0"),
        ("above", 9, "must be below 9, not 9"),
        ("real", "x", "must be a number, not 'x'"),
        ("real", float("nan"), "must be a finite number, not nan"),
        ("truth", "perhaps", "must be true or false, not 'perhaps'"),
        ("truth", [], "must be true or false, not []"),
        ("text", 5, "must be a text, not 5"),
        ("choice", "c", "must be 'a' or 'b', not 'c'"),
        ("rows", [], "must hold at least 1, not 0"),
        ("rows", [1, 2, 3], "must hold at most 2, not 3"),
        ("rows", 5, "must be a list, not 5"),
        ("names", 5, "must be an object, not 5"),
        ("inner", 5, "must be an object, not 5"),
        ("nothing", 5, "must be null, not 5"),
        ("needed", ..., "must be there"),
        ("stray", 5, "must not be there"),
        ("day", "y", "must be a text of its form, not 'y'"),
        ("when", 5, "must be what its documentation says, not 5"),
    ],
)
def test_every_kind_has_our_words(field, given, text):
    values = {"needed": 1, field: given}
    with pytest.raises(pydantic.ValidationError) as caught:
        Sample.model_validate({k: v for k, v in values.items() if v is not ...})
    (item,) = caught.value.errors()
    assert refusal(item) == text


def test_what_is_given_is_cut():
    item = {"type": "int_parsing_size", "input": "9" * 5000}
    assert len(refusal(item)) < 120
    assert len(refusal({"type": "string_type", "input": list(range(5000))})) < 120
