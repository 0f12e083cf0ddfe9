"""The documents that a report is made of, read and checked."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field

from vq.errors import ConfigError

__all__ = [
    "OBJECTIVES",
    "Document",
    "Energies",
    "Layer",
    "Measurement",
    "Rest",
    "Row",
    "Run",
    "Stalls",
    "Sweep",
    "read_document",
]

T = TypeVar("T", bound=pydantic.BaseModel)

#: Problems that one error lists.
_LISTED = 5
#: Relative difference of two figures that must be the same.
_SAME = 1e-6

Count = Annotated[int, Field(ge=0, le=1 << 60)]
Amount = Annotated[float, Field(ge=0, le=1e24)]
Ratio = Annotated[float, Field(gt=0, le=1e12)]
Positive = Annotated[int, Field(gt=0, le=1 << 60)]
Scalar = bool | int | float | str | None
Engine = Literal["rtl", "model"]


class _Checked(pydantic.BaseModel):
    """Fields with exactly these types; no NaN; fields that are not listed may be there, too."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, allow_inf_nan=False, extra="ignore", populate_by_name=True
    )


class _Open(_Checked):
    """Keeps what is not listed, to be shown."""

    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar]


class Stalls(_Checked):
    """Cycles in which nothing left the decoder, by cause."""

    memory: Count
    codebook: Count
    decoder: Count
    compute: Count
    writeback: Count


class _Cycles(_Checked):
    """Cycles, each busy or charged to one cause."""

    cycles: Count
    busy_cycles: Count
    stall_cycles: Stalls
    bytes_read: Count

    @property
    def by_cause(self) -> dict[str, int]:
        """Cycles by cause, the busy ones first."""
        return {"busy": self.busy_cycles, **self.stall_cycles.model_dump()}

    @pydantic.model_validator(mode="after")
    def _add_up(self) -> Self:
        _same("cycles", self.cycles, "busy_cycles and stall_cycles", sum(self.by_cause.values()))
        return self


class Layer(_Cycles):
    """One layer of a run."""

    name: str
    method: str
    weights: Count
    macs: Count
    m: Count


class Bytes(_Checked):
    """Bytes read, by what they are."""

    weights: Count
    codebooks: Count
    scales: Count
    activations: Count
    descriptors: Count
    padding: Count


class Energies(_Checked):
    """Picojoules of the memory, by cause."""

    activate: Amount
    read: Amount
    write: Amount
    refresh: Amount
    background: Amount


class Run(_Cycles):
    """One RUN of a measurement."""

    bytes_written: Count
    bursts: Count
    bit_exact: bool | None
    wall_seconds: Amount
    energy_pj: Amount | None = None
    energy_by: Energies | None = None
    bytes_by: Bytes
    layers: Annotated[list[Layer], Field(min_length=1)]

    @property
    def macs(self) -> int:
        """Multiplications of all layers."""
        return sum(layer.macs for layer in self.layers)

    @pydantic.model_validator(mode="after")
    def _add_up_too(self) -> Self:
        for field in ("cycles", "bytes_read", "busy_cycles"):
            total = sum(getattr(layer, field) for layer in self.layers)
            _same(field, getattr(self, field), f"{field} of all layers", total)
        _same("bytes_read", self.bytes_read, "bytes_by", sum(self.bytes_by.model_dump().values()))
        if self.energy_by is not None:
            total = sum(self.energy_by.model_dump().values())
            _same("energy_pj", self.energy_pj or 0, "energy_by", total)
        return self


class Accelerator(_Open):
    """Settings of the instance."""

    bus_bits: Positive
    rows: Positive
    columns: Positive


class Memory(_Open):
    """What a memory model says of itself."""

    name: str
    bytes_per_cycle: Ratio | None = None
    peak_bytes_per_cycle: Ratio | None = None


class RestLayer(_Checked):
    """A layer that the accelerator does not run."""

    name: str
    op: str
    macs: Count
    elements: Count
    cycles: Count


class Rest(_Checked):
    """What of a network is not weight traffic."""

    layers: list[RestLayer]
    macs: Count
    elements: Count
    cycles: Count
    assumed: str

    @pydantic.model_validator(mode="after")
    def _add_up(self) -> Self:
        total = sum(layer.cycles for layer in self.layers)
        _same("cycles", self.cycles, "cycles of all layers", total)
        return self


class Workload(_Checked):
    """The network whose shapes were measured."""

    name: str
    trained: bool
    layers: Count
    parameters: Count


class Measurement(_Checked):
    """A ``signbook.simulate/1`` document."""

    kind: Literal["signbook.simulate/1"] = Field(alias="schema")
    engine: Engine
    accelerator: Accelerator
    memory: Memory
    runs: Annotated[dict[str, Run], Field(min_length=1)]
    speedup: Ratio | None
    traffic_ratio: Ratio | None
    workload: Workload | None = None
    rest: Rest | None = None
    speedup_with_rest: Ratio | None = None
    versions: dict[str, str] | None = None

    @property
    def multipliers(self) -> int:
        """Of the array, each of which multiplies once per cycle."""
        return self.accelerator.rows * self.accelerator.columns

    @property
    def bytes_per_cycle(self) -> float | None:
        """What the memory delivers at most, if the document says so."""
        return self.memory.bytes_per_cycle or self.memory.peak_bytes_per_cycle

    @property
    def m(self) -> int | None:
        """Rows of activations, if all layers that multiply have as many."""
        found = {layer.m for run in self.runs.values() for layer in run.layers if layer.macs}
        return found.pop() if len(found) == 1 else None

    @property
    def methods(self) -> list[str]:
        """Of the compressed run's layers, in their order."""
        layers = self.runs["compressed"].layers
        return list(dict.fromkeys(layer.method for layer in layers if layer.weights))

    @pydantic.model_validator(mode="after")
    def _fit(self) -> Self:
        ours, int8 = self.runs.get("compressed"), self.runs.get("int8")
        if ours is None:
            raise ValueError("runs must hold 'compressed'")
        names = [layer.name for layer in ours.layers]
        for run, other in self.runs.items():
            if [layer.name for layer in other.layers] != names:
                raise ValueError(f"runs.{run}.layers must be those of runs.compressed, in order")
        if int8 is not None:
            _ratio("speedup", self.speedup, int8.cycles, ours.cycles)
            _ratio("traffic_ratio", self.traffic_ratio, int8.bytes_read, ours.bytes_read)
            if self.rest is not None:
                more = self.rest.cycles
                _ratio("speedup_with_rest", self.speedup_with_rest,
                       int8.cycles + more, ours.cycles + more)  # fmt: skip
        return self


class SweepPoint(_Checked):
    """What a row of a sweep was measured for."""

    target: str
    recipe: str | None = None
    memory: str
    rows: Positive | None = None
    accelerator: dict[str, Scalar] = {}


class Row(_Checked):
    """One point of a sweep; figures are None where there are none."""

    point: SweepPoint
    status: Literal["done", "refused", "failed"]
    error: str | None = None
    engine: Engine | None = None
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
    seconds: Amount | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "done":
            for field in ("engine", "cycles"):
                if getattr(self, field) is None:
                    raise ValueError(f"{field} must be there, because status is 'done'")
        return self


#: Field of a row that an objective looks at, by its name, and what an axis says of it.
OBJECTIVES = {
    "cycles": ("cycles", "cycles"),
    "int8_cycles": ("int8_cycles", "cycles with int8"),
    "bytes_read": ("bytes_read", "bytes read"),
    "bursts": ("bursts", "bursts"),
    "energy_pj": ("energy_pj", "energy of the memory, pJ"),
    "bits_per_weight": ("bits_per_weight", "bits per weight"),
    "area_macs": ("multipliers", "multiplications per cycle (R x C)"),
    "multipliers": ("multipliers", "multiplications per cycle (R x C)"),
    "bytes_per_cycle": ("bytes_per_cycle", "memory, bytes per cycle"),
    "speedup": ("speedup", "speed-up over int8"),
    "speedup_with_rest": ("speedup_with_rest", "speed-up over int8, rest included"),
    "traffic_ratio": ("traffic_ratio", "bytes read with int8 / with codebooks"),
    "busy_share": ("busy_share", "use of the multipliers"),
}


class Sweep(_Checked):
    """A ``signbook.sweep/1`` document."""

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


Document = Measurement | Sweep
_KINDS: dict[str, type[Measurement] | type[Sweep]] = {
    "signbook.simulate/1": Measurement,
    "signbook.sweep/1": Sweep,
}


class _Tag(_Checked):
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
    what = str(item["msg"])
    if item["type"] == "json_invalid":
        return f"must be JSON, but {what.removeprefix('Invalid JSON: ')}"
    if item["type"] == "missing":
        return f"{place} must be there"
    if item["type"] == "value_error":
        what = what.removeprefix("Value error, ")
        return f"{place}: {what}" if place else what
    given = repr(item["input"])
    given = given if len(given) <= 60 else f"{given[:57]}..."
    return f"{place or 'it'} {what.replace('Input should be', 'must be')}, not {given}"


def _same(field: str, value: float, other: str, total: float) -> None:
    if not math.isclose(value, total, rel_tol=_SAME if isinstance(total, float) else 0):
        raise ValueError(f"{field} must be the sum of {other}, {total:,}, not {value:,}")


def _ratio(field: str, value: float | None, above: int, below: int) -> None:
    if below and (value is None or not math.isclose(value, above / below, rel_tol=_SAME)):
        raise ValueError(f"{field} must be {above:,} / {below:,}, not {value}")
