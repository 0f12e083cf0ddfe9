"""Layers that load numbers between rows, or pass rows twice."""

import numpy as np
import pytest

from tests.rtl.vector.operations import MAKERS, rotary, wide
from tests.rtl.vector.rows import check


@pytest.mark.parametrize("seed", [2, 3])
def test_partners_are_read_before_new_angles(seed):
    """The lanes may stand still between a beat and its partner."""
    rng = np.random.default_rng(seed)
    work = [rotary(rng, wide(rng, (5, 8)), "halves", heads=h) for h in (1, 2)]
    check(work, idle=0.5, seed=seed)


def test_mean_of_one_row():
    rng = np.random.default_rng(4)
    check([MAKERS["mean"](rng, wide(rng, (n, 6))) for n in (1, 2)])
