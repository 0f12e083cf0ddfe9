"""The document ``signbook.simulate/2``: what a measurement says, checked wherever it is made.

Engines write it (:mod:`hwsim.measure.counts`), workloads add its runs up, sweeps and reports read
it. Fields stand in the order of the JSON.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import Field

from hwsim.measure.checked import Amount, Checked, Count, Engine, Open, Positive, Ratio, Scalar

__all__ = [
    "Accelerator",
    "Bytes",
    "Energies",
    "Layer",
    "Logic",
    "Measurement",
    "Memory",
    "Network",
    "Remaining",
    "Reordered",
    "Rest",
    "RestLayer",
    "Run",
    "Sampling",
    "Stalls",
    "by_cause",
    "total_of",
]

#: Relative difference of two figures that must be the same.
_SAME = 1e-6


class Stalls(Checked):
    """Cycles in which no vector entered the array, by cause: :data:`rtl.RUN_CAUSES`."""

    memory: Count
    codebook: Count
    decoder: Count
    vector: Count = 0  # not in documents of the schema's first number
    compute: Count
    writeback: Count


class Bytes(Checked):
    """Bytes read, by what they are."""

    weights: Count
    codebooks: Count
    scales: Count
    activations: Count
    descriptors: Count
    padding: Count


class Energies(Checked):
    """Picojoules of the memory, by cause."""

    activate: Amount
    read: Amount
    write: Amount
    refresh: Amount
    background: Amount


class Logic(Checked):
    """Picojoules of the accelerator's logic, by part (:mod:`hwsim.measure.logic`)."""

    buffers: Amount
    decoder: Amount
    array: Amount

    @property
    def total_pj(self) -> float:
        """Sum of all parts."""
        return self.buffers + self.decoder + self.array


Parts = TypeVar("Parts", Stalls, Bytes, Energies, Logic)


def total_of(parts: Sequence[tuple[int, Parts]]) -> Parts:
    """Add up what was counted by cause, each of ``parts`` so many times."""
    kind = type(parts[0][1])
    causes = kind.model_fields
    return kind(**{by: sum(times * getattr(part, by) for times, part in parts) for by in causes})


class Layer(Checked):
    """One layer of a run; its cycles are busy or charged to one cause."""

    name: str
    method: str
    weights: Count
    macs: Count
    m: Count
    cycles: Count
    bytes_read: Count
    busy_cycles: Count
    stall_cycles: Stalls

    def repeated(self, times: int) -> Self:
        """What so many layers take that are as this one, under its name."""
        counts = {"weights", "macs", "cycles", "bytes_read", "busy_cycles"}
        found: dict[str, Any] = {name: times * getattr(self, name) for name in counts}
        found["stall_cycles"] = total_of([(times, self.stall_cycles)])
        return self.model_copy(update=found)

    @pydantic.model_validator(mode="after")
    def _add_up(self) -> Self:
        _require_causes(self)
        return self


class Reordered(Checked):
    """Outputs per block of the streams of a file, and of the copy of it that was run.

    ``from_`` ("from" in the JSON) is None where the file's layers had several.
    """

    from_: Positive | None = Field(alias="from")
    to: Positive


class Run(Checked):
    """A file or a workload in one method, on the instance; sums are those of its layers."""

    cycles: Count
    bytes_read: Count
    bytes_written: Count
    bursts: Count
    stall_cycles: Stalls
    busy_cycles: Count
    bit_exact: bool | None
    wall_seconds: Amount
    energy_pj: Amount | None = None
    energy_by: Energies | None = None
    logic_pj: Amount | None = None
    logic_by: Logic | None = None
    bytes_by: Bytes
    layers: Annotated[list[Layer], Field(min_length=1)]
    reordered: Reordered | None = None

    @classmethod
    def total(cls, parts: Sequence[tuple[int, Self]]) -> Self:
        """One run of several, each so many times: none of them was compared with numpy."""
        energies = [(times, part.energy_by) for times, part in parts if part.energy_by is not None]
        energy = [times * part.energy_pj for times, part in parts if part.energy_pj is not None]
        logic = [(times, part.logic_by) for times, part in parts if part.logic_by is not None]
        spent = total_of(logic) if logic else None
        return cls(
            cycles=sum(times * part.cycles for times, part in parts),
            bytes_read=sum(times * part.bytes_read for times, part in parts),
            bytes_written=sum(times * part.bytes_written for times, part in parts),
            bursts=sum(times * part.bursts for times, part in parts),
            stall_cycles=total_of([(times, part.stall_cycles) for times, part in parts]),
            busy_cycles=sum(times * part.busy_cycles for times, part in parts),
            bit_exact=None,
            wall_seconds=sum(part.wall_seconds for _, part in parts),
            energy_pj=sum(energy) if energy else None,
            energy_by=total_of(energies) if energies else None,
            logic_pj=spent.total_pj if spent else None,
            logic_by=spent,
            bytes_by=total_of([(times, part.bytes_by) for times, part in parts]),
            layers=[layer.repeated(times) for times, part in parts for layer in part.layers],
        )

    @property
    def macs(self) -> int:
        """Multiplications of all layers."""
        return sum(layer.macs for layer in self.layers)

    @pydantic.model_validator(mode="after")
    def _add_up(self) -> Self:
        _require_causes(self)
        for field in ("cycles", "bytes_read", "busy_cycles"):
            total = sum(getattr(layer, field) for layer in self.layers)
            _require_same(field, getattr(self, field), f"{field} of all layers", total)
        by = sum(self.bytes_by.model_dump().values())
        _require_same("bytes_read", self.bytes_read, "bytes_by", by)
        if self.energy_by is not None:
            total = sum(self.energy_by.model_dump().values())
            _require_same("energy_pj", self.energy_pj or 0, "energy_by", total)
        if self.logic_by is not None:
            _require_same("logic_pj", self.logic_pj or 0, "logic_by", self.logic_by.total_pj)
        return self


def by_cause(counted: Layer | Run) -> dict[str, int]:
    """Cycles by cause, the busy ones first."""
    return {"busy": counted.busy_cycles, **counted.stall_cycles.model_dump()}


class Accelerator(Open):
    """Settings of the instance."""

    bus_bits: Positive
    rows: Positive
    columns: Positive


class Memory(Open):
    """What a memory model says of itself."""

    name: str

    @property
    def bytes_per_cycle(self) -> float | None:
        """What it delivers at most, if it says so."""
        return next(iter(self._rates().values()), None)

    def _rates(self) -> dict[str, Any]:
        given = self.__pydantic_extra__
        names = ("bytes_per_cycle", "peak_bytes_per_cycle")
        return {name: given[name] for name in names if given.get(name) is not None}

    @pydantic.model_validator(mode="after")
    def _delivers(self) -> Self:
        for name, value in self._rates().items():
            if not isinstance(value, int | float) or not 0 < value <= 1e12:
                raise ValueError(f"{name} must be a number above 0, not {value!r}")
        return self


class RestLayer(Checked):
    """A layer that the accelerator does not run."""

    name: str
    op: str
    macs: Count
    elements: Count
    cycles: Count


class Rest(Checked):
    """What of a network is not weight traffic."""

    layers: list[RestLayer]
    macs: Count
    elements: Count
    cycles: Count
    assumed: str

    @pydantic.model_validator(mode="after")
    def _add_up(self) -> Self:
        total = sum(layer.cycles for layer in self.layers)
        _require_same("cycles", self.cycles, "cycles of all layers", total)
        return self


class Remaining(Checked):
    """A part of a file's model that remains at run time and that the accelerator does not run.

    ``bytes`` are those of its tensors in the file, ``macs_per_token`` multiplications in all its
    layers together.
    """

    kind: str
    layers: list[str]
    bytes: Count
    macs_per_token: Count


class Sampling(Checked):
    """Calls of a diffusion network that runs and rest are of.

    ``times`` are all time steps of the sampler; ``turns`` is how often the device is started in a
    call, and bytes are those of int8 values that cross between it and the host.
    """

    times: Annotated[list[int], Field(min_length=1)]
    calls: Positive
    turns: Count
    bytes_to_device: Count
    bytes_from_device: Count


class Network(Checked):
    """The network whose shapes were measured."""

    name: str
    trained: bool
    layers: Count
    parameters: Count


class Measurement(Checked):
    """All runs on one instance and memory, and their ratios.

    ``workload`` is of networks without a file, ``sampling`` of diffusion networks, ``rest`` and
    ``speedup_with_rest`` of both; ``runtime`` is of files whose weights are not all there is to
    their model.
    """

    kind: Literal["signbook.simulate/1", "signbook.simulate/2"] = Field(alias="schema")
    engine: Engine
    accelerator: Accelerator
    memory: Memory
    runs: Annotated[dict[str, Run], Field(min_length=1)]
    speedup: Ratio | None
    traffic_ratio: Ratio | None
    workload: Network | None = None
    rest: Rest | None = None
    speedup_with_rest: Ratio | None = None
    runtime: list[Remaining] | None = None
    sampling: Sampling | None = None
    versions: dict[str, str] | None = None

    @classmethod
    def of(
        cls,
        engine: Engine,
        accelerator: Mapping[str, Scalar],
        memory: Mapping[str, Scalar],
        runs: dict[str, Run],
        *,
        workload: Network | None = None,
        rest: Rest | None = None,
        runtime: Sequence[Mapping[str, Any]] = (),
        sampling: Sampling | None = None,
    ) -> Self:
        """The document of runs by name, with their ratios.

        Parameters
        ----------
        engine : str
            "rtl" or "model".
        accelerator, memory : mapping
            What the instance and the memory model say of themselves.
        runs : dict of str to Run
            "compressed", and baselines; without "int8" there are no ratios.
        workload, rest : optional
            Of a network without a file; the rest also of a diffusion network.
        runtime : sequence of mapping
            Of a file, as :meth:`vq.container.Container.runtime_facts` lists it.
        sampling : Sampling, optional
            Of a diffusion network.
        """
        ours, int8 = runs["compressed"], runs.get("int8")
        more: dict[str, Any] = {}
        if workload is not None or sampling is not None:
            on_top = rest.cycles if rest else 0
            whole = (int8.cycles + on_top) / (ours.cycles + on_top) if int8 else None
            own = {"workload": workload} if sampling is None else {"sampling": sampling}
            more = {**own, "rest": rest, "speedup_with_rest": whole}
        if runtime:
            more["runtime"] = [Remaining(**part) for part in runtime]
        return cls(
            schema="signbook.simulate/2",
            engine=engine,
            accelerator=Accelerator.model_validate(accelerator),
            memory=Memory.model_validate(memory),
            runs=runs,
            speedup=int8.cycles / ours.cycles if int8 else None,
            traffic_ratio=int8.bytes_read / ours.bytes_read if int8 else None,
            **more,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data; what was never said is left out."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    @property
    def multipliers(self) -> int:
        """Of the array, each of which multiplies once per cycle."""
        return self.accelerator.rows * self.accelerator.columns

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
            _require_ratio("speedup", self.speedup, int8.cycles, ours.cycles)
            _require_ratio("traffic_ratio", self.traffic_ratio, int8.bytes_read, ours.bytes_read)
            if self.rest is not None:
                more = self.rest.cycles
                _require_ratio("speedup_with_rest", self.speedup_with_rest,
                               int8.cycles + more, ours.cycles + more)  # fmt: skip
        return self


def _require_causes(counted: Layer | Run) -> None:
    total = sum(by_cause(counted).values())
    _require_same("cycles", counted.cycles, "busy_cycles and stall_cycles", total)


def _require_same(field: str, value: float, other: str, total: float) -> None:
    if not math.isclose(value, total, rel_tol=_SAME if isinstance(total, float) else 0):
        raise ValueError(f"{field} must be the sum of {other}, {total:,}, not {value:,}")


def _require_ratio(field: str, value: float | None, above: int, below: int) -> None:
    if below and (value is None or not math.isclose(value, above / below, rel_tol=_SAME)):
        raise ValueError(f"{field} must be {above:,} / {below:,}, not {value}")
