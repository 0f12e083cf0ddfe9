"""The front: its definition, quadratic and plain, is the check."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwsim.sweep import OBJECTIVES, front_of_rows, pareto_front
from hwsim.sweep.document import Measures

costs = st.integers(1, 4).flatmap(
    lambda m: st.lists(st.lists(st.integers(-3, 3), min_size=m, max_size=m), max_size=40)
)


def beats(a: list[int], b: list[int]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(costs)
def test_front_is_what_nothing_beats(points: list[list[int]]) -> None:
    want = [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    assert pareto_front(points).tolist() == want


def test_large_front_is_fast() -> None:
    angle = np.random.default_rng(0).uniform(0, np.pi / 2, 3000)
    ring = -np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert len(pareto_front(ring)) == 3000


def row(target: str, **measures: float) -> dict:
    point = {"target": target, "rows": None}
    return {"point": point, **Measures().model_dump(), **measures}


def test_less_or_more_is_better_by_name() -> None:
    rows = [row("a", cycles=9, speedup=3.0), row("a", cycles=9, speedup=2.0), row("a", cycles=8)]
    assert front_of_rows(rows, ["speedup"]) == [0]
    assert front_of_rows(rows, ["cycles"]) == [2]
    assert front_of_rows(rows, ["cycles", "speedup"]) == [0]  # the last one has no speed-up
    assert front_of_rows(rows, ["energy_pj"]) == []


def test_other_work_is_not_compared() -> None:
    rows = [row("a", cycles=9), row("b", cycles=8), row("b", cycles=10)]
    assert front_of_rows(rows, ["cycles"]) == [0, 1]


def test_objectives_are_fields_of_rows() -> None:
    assert {axis.field for axis in OBJECTIVES.values()} <= set(Measures.model_fields)
