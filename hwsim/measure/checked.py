"""Models of documents: fields with exactly one type, and figures within reason."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

__all__ = ["Amount", "Checked", "Count", "Engine", "Open", "Positive", "Ratio", "Scalar"]

Count = Annotated[int, Field(ge=0, le=1 << 60)]
Amount = Annotated[float, Field(ge=0, le=1e24)]
Ratio = Annotated[float, Field(gt=0, le=1e12)]
Positive = Annotated[int, Field(gt=0, le=1 << 60)]
Scalar = bool | int | float | str | None
Engine = Literal["rtl", "model"]


class Checked(pydantic.BaseModel):
    """Fields with exactly these types; no NaN; fields that are not listed may be there, too."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, allow_inf_nan=False, extra="ignore", defer_build=True
    )


class Open(Checked):
    """Keeps what is not listed, to be shown."""

    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar]
