"""Whole layers through the engine, against numpy in plain integers."""

import pytest

from tests.rtl.compute.layers import Layer, check
from tests.rtl.compute.windows import CASES, Conv


@pytest.mark.parametrize("idle", [0.0, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_layers(name, idle):
    check([Layer(CASES[name], 1)], idle)


@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("d", [2, 4, 8])
def test_layers_of_sub_vectors_follow_one_another(d, axis):
    names = ("strided", "linear", "uneven channels", "rows of a linear")
    check([Layer(CASES[name], i, d, axis) for i, name in enumerate(names)], 0.2, seed=d)


def test_many_positions_keep_the_array_busy():
    counts = check(
        [Layer(Conv(64, 8, size=(8, 8)), 0, 8), Layer(Conv(64, 8, size=(8, 8)), 1, 8)], 0
    )
    assert counts["busy"] == 2 * 8 * 64
    assert counts["busy"] / sum(counts.values()) > 0.85
