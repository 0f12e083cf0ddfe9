"""What points can be compared by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.sweep.checks import name_problem

__all__ = ["DEFAULT_OBJECTIVES", "OBJECTIVES", "costs_of", "objective_problems"]

#: Field of a row, and whether more of it is better, by the name of the objective.
OBJECTIVES: Mapping[str, tuple[str, bool]] = {
    "cycles": ("cycles", False),
    "bytes_read": ("bytes_read", False),
    "bursts": ("bursts", False),
    "energy_pj": ("energy_pj", False),
    "bits_per_weight": ("bits_per_weight", False),
    "area_macs": ("multipliers", False),
    "bytes_per_cycle": ("bytes_per_cycle", False),
    "speedup": ("speedup", True),
    "speedup_with_rest": ("speedup_with_rest", True),
    "traffic_ratio": ("traffic_ratio", True),
    "busy_share": ("busy_share", True),
}
DEFAULT_OBJECTIVES = ("cycles", "area_macs")


def objective_problems(objectives: Sequence[str]) -> list[str]:
    """Everything that is wrong with a choice of objectives."""
    problems = [] if objectives else ["objectives must be at least one, not none"]
    for name, times in Counter(objectives).items():
        problems += name_problem("objective", name, OBJECTIVES)
        problems += [f"objective {name!r} must be given once, not {times} times"] * (times > 1)
    return problems


def costs_of(row: Mapping[str, Any], objectives: Sequence[str]) -> list[float] | None:
    """What a row costs, less being better; None if it was not measured or lacks an objective."""
    costs = []
    for name in objectives:
        field, more_is_better = OBJECTIVES[name]
        value = row[field]
        if value is None:
            return None
        costs.append(float(-value if more_is_better else value))
    return costs
