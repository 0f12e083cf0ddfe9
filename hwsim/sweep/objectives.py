"""What points can be compared by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hwsim.sweep.checks import name_problem

__all__ = ["DEFAULT_OBJECTIVES", "OBJECTIVES", "Axis", "costs_of", "objective_problems"]


class Axis(NamedTuple):
    """What an objective looks at.

    Attributes
    ----------
    field : str
        Of a row: :class:`hwsim.sweep.document.Measures`.
    more_is_better : bool
    label : str
        What a plot or a table says of it.
    """

    field: str
    more_is_better: bool
    label: str


OBJECTIVES: Mapping[str, Axis] = {
    "cycles": Axis("cycles", False, "cycles"),
    "bytes_read": Axis("bytes_read", False, "bytes read"),
    "bursts": Axis("bursts", False, "bursts"),
    "energy_pj": Axis("energy_pj", False, "energy of the memory, pJ"),
    "bits_per_weight": Axis("bits_per_weight", False, "bits per weight"),
    "area_macs": Axis("multipliers", False, "multiplications per cycle (R x C)"),
    "bytes_per_cycle": Axis("bytes_per_cycle", False, "memory, bytes per cycle"),
    "speedup": Axis("speedup", True, "speed-up over int8"),
    "speedup_with_rest": Axis("speedup_with_rest", True, "speed-up over int8, rest included"),
    "traffic_ratio": Axis("traffic_ratio", True, "bytes read with int8 / with codebooks"),
    "busy_share": Axis("busy_share", True, "use of the multipliers"),
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
        axis = OBJECTIVES[name]
        value = row[axis.field]
        if value is None:
            return None
        costs.append(float(-value if axis.more_is_better else value))
    return costs
