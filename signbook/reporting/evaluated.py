"""``signbook.eval/1`` documents, and their sections."""

from typing import Annotated, Self

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from hwsim.measure.checked import Checked, Scalar
from signbook import plots
from signbook.reporting.parts import Part, Section, Table, settings

__all__ = ["Evaluated", "evaluated_section"]

_Pixel = Annotated[int, Field(ge=0, le=255)]
_Row = Annotated[list[_Pixel], Field(min_length=1)]
_Image = Annotated[list[_Row], Field(min_length=1)]
_Images = Annotated[list[_Image], Field(min_length=1)]


class Samples(Checked):
    """Images that a model drew, and those of its reference from the same noise."""

    model: _Images
    reference: _Images | None = None

    @pydantic.model_validator(mode="after")
    def _alike(self) -> Self:
        arms = [images for images in (self.model, self.reference) if images is not None]
        sizes = {
            (len(images), len(image), len(row))
            for images in arms
            for image in images
            for row in image
        }
        if len(sizes) > 1:
            raise ValueError("images must be of one size, as many of both models")
        return self

    def arms(self) -> dict[str, NDArray[np.float64]]:
        """Brightness [N, H, W] in [0, 1] of all that are to be seen side by side."""
        model = np.array(self.model) / 255
        if self.reference is None:
            return {"model": model}
        reference = np.array(self.reference) / 255
        difference = np.abs(model - reference)
        return {"reference": reference, "model": model, "difference": difference}


class Drift(Checked):
    """How far a model and its reference have parted at each step from equal noise."""

    steps: Annotated[list[int], Field(min_length=1)]
    relative_error: list[Annotated[float, Field(ge=0)]]

    @pydantic.model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.steps) != len(self.relative_error):
            raise ValueError("steps and relative_error must be equally many")
        return self


class Evaluated(Checked):
    """What ``signbook eval`` wrote."""

    metrics: dict[str, float]
    reference: dict[str, float] | None = None
    protocol: dict[str, Scalar] | None = None
    samples: Samples | None = None
    drift: Drift | None = None


def evaluated_section(number_: int, document: Evaluated, file: str) -> Section:
    """One document: metrics of the model beside its reference, and what both drew."""
    how = settings(document.protocol or {})
    note = f"How the text was cut: {how}" if how else ""
    parts = [Part("Metrics", table=_metrics(document), note=note)]
    if document.samples is not None:
        arms = document.samples.arms()
        note = "The first images that were drawn; what is white in them is ink here."
        if len(arms) > 1:
            note += " Equal places started from equal noise."
        parts.append(Part("Samples", plots.sample_sheet(arms), note=note))
    if document.drift is not None:
        note = (
            "How far what both were given had parted at each step from equal noise: the root mean "
            f"square of the difference over that of the reference, at t = {document.drift.steps[0]}"
            f" to {document.drift.steps[-1]}."
        )
        parts.append(Part("Drift", plots.drift_curve(document.drift.relative_error), note=note))
    return Section(f"{number_}. Evaluation: {file.removesuffix('.json')}", (), file, parts=parts)


def _metrics(document: Evaluated) -> Table:
    columns = {"model": document.metrics}
    if document.reference is not None:
        columns["reference"] = document.reference
    rows = [
        [name, *(f"{of[name]:.5g}" if name in of else "–" for of in columns.values())]
        for name in document.metrics
    ]
    return Table(["metric", *columns], rows)
