"""Ranges are cut so that every column is solved once, in order, and corrected for all before."""

import pytest
import torch

from rescomp.methods import Correction
from rescomp.recursion import Recursion


class Noted(Recursion):
    """Leaves columns as they are and passes on their number."""

    def __init__(self, count, leaf, wholes):
        current = torch.zeros(count, 1, dtype=torch.float64)
        feedback = -torch.ones(count, count, dtype=torch.float64).triu(1)
        super().__init__(current, current.clone(), feedback, None, Correction(), leaf, wholes)
        self.leaves, self.begun, self.ended = [], [], []

    def begin(self, start, end):
        self.begun.append((start, end))

    def end(self, start, end):
        self.ended.append((start, end))

    def solve_leaf(self, start, end):
        self.leaves.append((start, end))
        for column in range(start, end):
            self.current[column] += torch.arange(start, column).sum()
            self.errors[column] = column


@pytest.mark.parametrize("leaf", [1, 3, 8, 100])
@pytest.mark.parametrize("wholes", [set(), {6}, {4, 12}])
def test_columns_are_corrected_for_all_before_them(leaf, wholes):
    one = Noted(25, leaf, wholes)
    one.solve(0, 25)
    assert [start for start, _ in one.leaves] == [0] + [end for _, end in one.leaves[:-1]]
    assert one.current[:, 0].tolist() == [sum(range(column)) for column in range(25)]
    for size in wholes:  # every whole range is begun and ended once
        parts = [(at, min(at + size, 25)) for at in range(0, 25, size)]
        assert [r for r in one.begun if one.is_one(size, *r)] == parts
        assert [r for r in one.ended if one.is_one(size, *r)] == parts
