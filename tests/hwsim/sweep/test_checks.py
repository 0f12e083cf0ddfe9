"""One problem for each name that does not exist and each number that is too small or none."""

import pytest

from hwsim.sweep.checks import count_problem, name_problem


def test_names():
    assert name_problem("engine", "rtl", ["model", "rtl"]) == []
    assert name_problem("engine", "modl", ["model", "rtl"]) == [
        "engine must be one of model, rtl, not 'modl' (did you mean 'model'?)"
    ]
    assert name_problem("engine", 7, ["model", "rtl"]) == [
        "engine must be one of model, rtl, not 7"
    ]


@pytest.mark.parametrize("given", [0, -1, 1.0, "1", True, None])
def test_counts(given):
    assert count_problem("rows", 1, 1) == []
    assert count_problem("rows", given, 1) == [f"rows must be a whole number from 1, not {given!r}"]
