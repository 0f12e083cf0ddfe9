"""The measured document: sums are those of its parts, and nothing is said that was not."""

from typing import Any

import pytest

from hwsim.measure.document import (
    Bytes,
    Energies,
    Layer,
    Measurement,
    Memory,
    Network,
    Rest,
    Run,
    Stalls,
    by_cause,
    total_of,
)
from rtl import RUN_CAUSES, AcceleratorConfig

STALL = Stalls(memory=3, codebook=0, decoder=0, compute=1, writeback=0)
LAYER = Layer(
    name="b.{}.fc", method="ssvq", weights=64, macs=256, m=4,
    cycles=6, bytes_read=40, busy_cycles=2, stall_cycles=STALL,
)  # fmt: skip


def run(*, energy: bool = True, **changed: Any) -> Run:
    by = Bytes(weights=30, codebooks=2, scales=3, activations=4, descriptors=1, padding=0)
    spent = Energies(activate=1.5, read=2.0, write=0.0, refresh=0.25, background=4.0)
    facts: dict[str, Any] = {
        "cycles": 6, "bytes_read": 40, "bytes_written": 8, "bursts": 2, "stall_cycles": STALL,
        "busy_cycles": 2, "bit_exact": None, "wall_seconds": 0.5,
        "energy_pj": 7.75 if energy else None, "energy_by": spent if energy else None,
        "bytes_by": by, "layers": [LAYER],
    }  # fmt: skip
    return Run(**facts | changed)


def document(**more: Any) -> Measurement:
    ours = run()
    int8 = run(bytes_read=80, bytes_by=ours.bytes_by.model_copy(update={"weights": 70}),
               layers=[LAYER.model_copy(update={"bytes_read": 80})])  # fmt: skip
    runs = {"compressed": ours, "int8": int8}
    return Measurement.of("model", AcceleratorConfig().to_mapping(), {"name": "m"}, runs, **more)


def test_causes_are_those_of_the_hardware():
    assert tuple(Stalls.model_fields) == RUN_CAUSES
    assert list(by_cause(LAYER)) == ["busy", *RUN_CAUSES]
    assert total_of([(2, STALL), (1, STALL)]).memory == 9


def test_runs_add_up():
    total = Run.total([(1, run()), (3, run())])
    assert (total.cycles, total.bytes_read, total.bursts, total.busy_cycles) == (24, 160, 8, 8)
    assert (total.energy_pj, total.energy_by.read, total.bytes_by.scales) == (31.0, 8.0, 12)
    assert total.wall_seconds == 1.0  # that of the model, which ran each once
    assert [layer.macs for layer in total.layers] == [256, 768]
    assert total.layers[1].m == 4 and total.macs == 1024
    assert Run.total([(2, run(energy=False))]).energy_by is None


def test_only_what_was_said_is_written():
    plain = document().to_json()
    assert list(plain) == [
        "schema", "engine", "accelerator", "memory", "runs", "speedup", "traffic_ratio",
    ]  # fmt: skip
    assert (plain["speedup"], plain["traffic_ratio"]) == (1.0, 2.0)
    network = Network(name="net", trained=False, layers=1, parameters=64)
    whole = document(workload=network).to_json()
    assert (whole["rest"], whole["speedup_with_rest"]) == (None, 1.0)
    assert Measurement.model_validate(whole).to_json() == whole


def test_what_a_memory_delivers():
    assert Memory.model_validate({"name": "m"}).bytes_per_cycle is None
    assert Memory.model_validate({"name": "m", "peak_bytes_per_cycle": 2.5}).bytes_per_cycle == 2.5
    for wrong in (0, "much"):
        message = f"peak_bytes_per_cycle must be a number above 0, not {wrong!r} "
        with pytest.raises(ValueError, match=message):
            Memory.model_validate({"name": "m", "peak_bytes_per_cycle": wrong})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(cycles=7), "cycles must be the sum of busy_cycles and stall_cycles, 6, not 7"),
        (lambda: run(bytes_read=41), "bytes_read must be the sum of bytes_read of all layers, 40"),
        (lambda: run(energy_pj=9.0), "energy_pj must be the sum of energy_by, 7.75, not 9.0"),
        (lambda: Rest(layers=[], macs=0, elements=0, cycles=3, assumed=""),
         "cycles must be the sum of cycles of all layers, 0, not 3"),
        (lambda: Measurement.model_validate(document().to_json() | {"speedup": 2.0}),
         "speedup must be 6 / 6, not 2.0"),
        (lambda: Measurement.model_validate(document().to_json() | {"runs": {"int8": run()}}),
         "runs must hold 'compressed'"),
    ],
)  # fmt: skip
def test_books_that_do_not_balance_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
