"""Rows and sweeps: a row that was measured has its figures, and the front is of such rows."""

import pytest

from hwsim.sweep.document import Measures, Row, Sweep

POINT = {"target": "resnet-20", "memory": "ideal"}


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
