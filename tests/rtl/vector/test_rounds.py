"""Rounds share the lanes without meeting."""

import pytest

from rtl.vector.rounds import PROGRAMS, RETURN_CYCLES, ROUNDS_MAX


@pytest.mark.parametrize("rounds", range(1, ROUNDS_MAX + 1))
def test_no_beat_meets_one_that_returns(rounds):
    entries = [rounds * beat + RETURN_CYCLES * j for beat in range(50) for j in range(rounds)]
    assert len(set(entries)) == len(entries)


def test_two_passes_wait_for_each_other():
    assert all(one.drains for one in PROGRAMS.values() if one.second)
