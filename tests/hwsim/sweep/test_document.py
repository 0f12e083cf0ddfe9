"""Rows and sweeps: a row that was measured has its figures, and objectives are fields of rows."""

import pytest

from hwsim.sweep.document import Measures, Row, Sweep
from hwsim.sweep.objectives import OBJECTIVES, costs_of, objective_problems

POINT = {"target": "resnet-20", "memory": "ideal"}


def test_objectives_look_at_measures():
    row = Measures(cycles=9, speedup=2.5, multipliers=64).model_dump()
    assert {axis.field for axis in OBJECTIVES.values()} <= row.keys()
    assert costs_of(row, ["cycles", "speedup", "area_macs"]) == [9.0, -2.5, 64.0]
    assert costs_of(row, ["cycles", "bursts"]) is None
    assert objective_problems([]) == ["objectives must be at least one, not none"]
    assert objective_problems(["cycles"] * 2) == [
        "objective 'cycles' must be given once, not 2 times"
    ]


def test_rows_that_were_measured_have_figures():
    row = Row(point=POINT, status="refused", error="too large")
    assert set(Measures.model_fields) < set(row.model_dump())
    with pytest.raises(ValueError, match=r"cycles must be there, because status is 'done'"):
        Row(point=POINT, status="done", engine="model")


def test_the_front_is_of_rows_that_were_measured():
    rows = [
        Row(point=POINT, status="done", engine="rtl", cycles=3),
        Row(point=POINT, status="failed"),
    ]
    facts = {"schema": "signbook.sweep/1", "objectives": ["cycles"], "rows": rows, "pareto": [0]}
    assert [row.cycles for row in Sweep(**facts).done] == [3]
    for change, message in (
        ({"pareto": [1]}, r"pareto\[0\] must be the index of a done row, not 1"),
        (
            {"objectives": ["int8_cycles"]},
            r"objectives\[0\] must be one of cycles, .*, not 'int8_c",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Sweep(**facts | change)
