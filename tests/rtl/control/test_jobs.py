"""Operations of the vector unit in programs: between layers of the array, and refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.cycles import predict
from hwsim.memory import parse_memory
from hwsim.simulator.accelerator import Outcome, Surroundings, run_programs
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, VECTOR_LAYER, VECTOR_VERSION, RunStatus
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, VECTOR, Layers, every_format
from tests.rtl.vector.memory import Jobs, packed
from tests.rtl.vector.operations import MAKERS, wide
from vq.container import GRANULE_BYTES, Layer

pytestmark = pytest.mark.rtl

MIXED = ("function_of_bytes", "add", "halves", "softmax", "norm", "mean")


@dataclass
class Written:
    """A program by hand: what a run of one has to know."""

    address: int
    records: int
    layers: list


class Mixed:
    """Two layers of the array, the second behind an operation on what the first one gives."""

    def __init__(self, folder: Path) -> None:
        make, rng = Maker(3), np.random.default_rng(3)
        integers = rng.integers(-128, 128, (16, 24)).astype(np.int8)
        tile = {"tile_outputs": VECTOR.rows}
        int8 = Layer.int8("int8", integers=integers, scale=make.scale(16), **tile)
        self.array = Layers(folder, [int8, make.ssvq("ssvq", (19, 33), 4, 16, **tile)], 5, VECTOR)
        image = self.array.image()
        self.jobs = jobs = Jobs(VECTOR.vector.lanes, len(image), image)
        records = jobs.take(GRANULE_BYTES * 8)
        first = self.array.work[0]
        place = self.array.program.places[first.step.target]
        words = place.pixel_bytes // jobs.word
        self.fields = []
        for number, name in enumerate(MIXED):
            x = wide(rng, (4, 16)) if number else first.outputs.astype(np.int64)
            self.fields.append(jobs.add(MAKERS[name](rng, x), 0))
            if not number:
                pitch = {"count": len(x), "pitch": words}
                self.fields[0]["values"] |= {"address": place.address, "inner": pitch}
        order = ["array", "vector", "array", *["vector"] * (len(MIXED) - 1)]
        address = jobs.take(PROGRAM_BYTES * len(order))
        self.program = Written(address, records, order)

    def image(self, number: int = 0, **changed: Any) -> bytearray:
        """Memory with the program, some numbers of one operation being others."""
        image = bytearray(self.jobs.image)
        array = iter(range(2))
        fields = iter(enumerate(self.fields))
        for at, kind in enumerate(self.program.layers):
            record = self.program.records // GRANULE_BYTES + at
            if kind == "array":
                start = PROGRAM_BYTES * next(array)
                raw = self.array.program.descriptors[start : start + PROGRAM_BYTES]
                field = PROGRAM_LAYER["store"].shape["record"]
                offset = PROGRAM_LAYER["store"].offset + field.offset
                bits = int.from_bytes(raw, "little")
                bits = bits & ~((1 << field.width) - 1 << offset) | record << offset
            else:
                i, own = next(fields)
                own = own | {"record": record, "operation": dict(own["operation"])}
                for path, value in (changed if i == number else {}).items():
                    part, _, name = path.rpartition("__")
                    own[part] = own[part] | {name: value}
                bits = VECTOR_VERSION | packed(own) << VECTOR_LAYER["job"].offset
            place = self.program.address + PROGRAM_BYTES * at
            image[place : place + PROGRAM_BYTES] = bits.to_bytes(PROGRAM_BYTES, "little")
        return image

    def run(self, around: Surroundings | None = None, **changed: Any) -> Outcome:
        (outcome,) = run_programs(VECTOR, [self.program], self.image(**changed), around)
        return outcome


@pytest.mark.parametrize(
    "memory", ["latency=20,bytes_per_cycle=16", "latency=90,bytes_per_cycle=3"]
)
def test_operations_between_layers(tmp_path: Path, memory: str) -> None:
    """All values in memory; every cycle has a cause, and the unit's own belong to operations."""
    mixed = Mixed(tmp_path)
    outcome = mixed.run(Surroundings(memory=f"ideal:{memory}"))
    mixed.array.require_exact(outcome)
    mixed.jobs.check(outcome.image)
    kinds = zip(mixed.program.layers, outcome.records, strict=True)
    for kind, record in kinds:
        assert (record.busy_cycles > 0) == (kind == "array")
        assert (record.stall_cycles["vector"] > 0) == (kind == "vector")
    assert outcome.registers["VECTOR_CYCLES"] == sum(
        record.stall_cycles["vector"] for record in outcome.records
    )


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"operation__rows": 0}, RunStatus.SHAPE),
        ({"outputs__run": 2}, RunStatus.SHAPE),
        ({"operation__channels": 65, "operation__length": 65}, RunStatus.SHAPE),
        (
            {
                "operation__channels": 65,
                "operation__length": 65,
                "values__run": 9,
                "outputs__inner": {"count": 9, "pitch": 5},
            },
            RunStatus.BUFFER,
        ),
        ({"values__address": 4}, RunStatus.ADDRESS),
    ],
)
def test_operations_that_contradict_themselves(tmp_path, changed, status) -> None:
    """Refused by the number of their descriptor, before they read or write."""
    outcome = Mixed(tmp_path).run(**changed)
    assert (outcome.status, outcome.failed_layer) == (status, 1)


def test_programs_of_the_array_run_as_without_the_unit(tmp_path: Path) -> None:
    """Every counter and record is the cycle model's, which knows no vector unit."""
    layers = Layers(tmp_path, every_format()[1:5], 6, VECTOR)
    memory = "ideal:latency=40,bytes_per_cycle=4"
    (outcome,) = layers.run(Surroundings(memory=memory))
    layers.require_exact(outcome)
    model = predict(VECTOR, layers.program, parse_memory(memory))
    assert outcome.registers | model.registers == outcome.registers
    assert outcome.records == model.records


def test_an_instance_without_the_unit_knows_no_operations(tmp_path: Path) -> None:
    mixed = Mixed(tmp_path)
    (outcome,) = run_programs(SMALL, [mixed.program], mixed.image())
    assert (outcome.status, outcome.failed_layer) == (RunStatus.VERSION, 1)
