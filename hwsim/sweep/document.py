"""The document ``signbook.sweep/1``: points, what each cost, and which no other one beats."""

from typing import Literal, Self

import pydantic
from pydantic import Field

from hwsim.measure.checked import Amount, Checked, Count, Engine, Positive, Ratio, Scalar
from hwsim.sweep.objectives import OBJECTIVES

__all__ = ["Measures", "Row", "Sweep", "SweepPoint"]


class SweepPoint(Checked):
    """What a row of a sweep was measured for."""

    target: str
    recipe: str | None = None
    memory: str
    rows: Positive | None = None
    accelerator: dict[str, Scalar] = Field(default_factory=dict)


class Measures(Checked):
    """What a point cost; None where it was not measured, or there is no such figure."""

    cycles: Positive | None = None
    int8_cycles: Positive | None = None
    speedup: Ratio | None = None
    traffic_ratio: Ratio | None = None
    bytes_read: Count | None = None
    int8_bytes_read: Count | None = None
    bursts: Count | None = None
    energy_pj: Amount | None = None
    busy_share: Amount | None = None
    macs: Count | None = None
    multipliers: Positive | None = None
    bytes_per_cycle: Ratio | None = None
    rows: Positive | None = None
    bits_per_weight: Ratio | None = None
    speedup_with_rest: Ratio | None = None


class Row(Measures):
    """One point of a sweep, and how its measurement ended."""

    point: SweepPoint
    status: Literal["done", "refused", "failed"]
    error: str | None = None
    engine: Engine | None = None
    seconds: Amount | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "done":
            for field in ("engine", "cycles"):
                if getattr(self, field) is None:
                    raise ValueError(f"{field} must be there, because status is 'done'")
        return self


class Sweep(Checked):
    """All rows, and which of them no other one beats in ``objectives``."""

    kind: Literal["signbook.sweep/1"] = Field(alias="schema")
    objectives: list[str]
    rows: list[Row]
    pareto: list[Count]
    versions: dict[str, str] | None = None

    @property
    def done(self) -> list[Row]:
        """Rows that were measured."""
        return [row for row in self.rows if row.status == "done"]

    @pydantic.model_validator(mode="after")
    def _fit(self) -> Self:
        for i, index in enumerate(self.pareto):
            if index >= len(self.rows) or self.rows[index].status != "done":
                raise ValueError(f"pareto[{i}] must be the index of a done row, not {index}")
        for i, name in enumerate(self.objectives):
            if name not in OBJECTIVES:
                known = ", ".join(OBJECTIVES)
                raise ValueError(f"objectives[{i}] must be one of {known}, not {name!r}")
        return self
