"""Sweeps: many points of a space of targets, recipes, memories and accelerators, each measured.

:func:`sweep` is the door.

==========  =================================================================
module      what it is about
==========  =================================================================
door        a whole sweep: resumes, runs, keeps the documents
space       which values each axis has, checked; the points that they span
evaluate    one point to one row, in whatever process
grid        all points in order; ``search`` chooses them by optuna
crew        points under way on an executor whose workers may die
local       worker processes of this machine
journal     rows on disk, each as soon as it is there
resume      whether a folder holds the same sweep
objectives  what can be compared, and whether less or more is better
document    what is written, and what reports read
front       which points no other one beats
==========  =================================================================
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.sweep.door import Told, sweep
    from hwsim.sweep.front import front_of_rows, pareto_front
    from hwsim.sweep.local import local_pool
    from hwsim.sweep.objectives import DEFAULT_OBJECTIVES, OBJECTIVES
    from hwsim.sweep.space import Point, Space, read_space

_HOME = {
    "DEFAULT_OBJECTIVES": "objectives",
    "OBJECTIVES": "objectives",
    "Point": "space",
    "Space": "space",
    "Told": "door",
    "front_of_rows": "front",
    "local_pool": "local",
    "pareto_front": "front",
    "read_space": "space",
    "sweep": "door",
}

__all__ = [
    "DEFAULT_OBJECTIVES",
    "OBJECTIVES",
    "Point",
    "Space",
    "Told",
    "front_of_rows",
    "local_pool",
    "pareto_front",
    "read_space",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hwsim.sweep' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hwsim.sweep.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
