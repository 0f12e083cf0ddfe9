"""Which points no other one beats."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.sweep.objectives import costs_of

__all__ = ["front_of_rows", "pareto_front"]


def pareto_front(costs: ArrayLike) -> NDArray[np.intp]:
    """Points that no other one beats: at most as costly in all, and less in one.

    Parameters
    ----------
    costs : array [points, objectives]
        Less is better.

    Returns
    -------
    array of int
        Indices, ascending. Points that cost the same are all in it, or none is.

    Examples
    --------
    >>> pareto_front([[1, 4], [2, 2], [3, 3], [2, 2]]).tolist()
    [0, 1, 3]
    """
    values = np.asarray(costs, np.float64)
    if not len(values):
        return np.empty(0, np.intp)
    left = np.lexsort(values.T[::-1])  # nothing is beaten by what comes behind it
    front: list[NDArray[np.intp]] = []
    while len(left):
        best = values[left[0]]
        same = (values[left] == best).all(axis=1)
        front.append(left[same])
        left = left[(values[left] < best).any(axis=1)]
    return np.sort(np.concatenate(front))


def front_of_rows(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> list[int]:
    """The front among the rows of a sweep: for each target and number of rows its own.

    Only points that do the same work can beat each other. Rows that were not measured, or lack
    one of the objectives, are left out.
    """
    groups: dict[Hashable, list[tuple[int, list[float]]]] = defaultdict(list)
    for index, row in enumerate(rows):
        costs = costs_of(row, objectives)
        if costs is not None:
            groups[row["point"]["target"], row["point"]["rows"]].append((index, costs))
    found = [
        members[chosen][0]
        for members in groups.values()
        for chosen in pareto_front([costs for _, costs in members])
    ]
    return sorted(found)
