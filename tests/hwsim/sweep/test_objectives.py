"""Objectives are fields of rows, each given once; less is better where costs are compared."""

from hwsim.sweep.document import Measures
from hwsim.sweep.objectives import OBJECTIVES, costs_of, objective_problems


def test_objectives_look_at_measures():
    row = Measures(cycles=9, speedup=2.5, multipliers=64).model_dump()
    assert {axis.field for axis in OBJECTIVES.values()} <= row.keys()
    assert costs_of(row, ["cycles", "speedup", "area_macs"]) == [9.0, -2.5, 64.0]
    assert costs_of(row, ["cycles", "bursts"]) is None
    assert objective_problems([]) == ["objectives must be at least one, not none"]
    assert objective_problems(["cycles"] * 2) == [
        "objective 'cycles' must be given once, not 2 times"
    ]
