"""Workloads: which layers a network has, of which shapes, in which order, how often.

:func:`workload` is the door. The names below are imported when they are first used, and torch only
by what traces a model.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.workloads.door import BUILT_IN, workload
    from hwsim.workloads.layer import INPUT, LAYER_OPS, WEIGHTED_OPS, WorkloadLayer
    from hwsim.workloads.lower import PlannedWorkload, plan_workload
    from hwsim.workloads.network import Workload
    from hwsim.workloads.planned import PlannedFile
    from hwsim.workloads.recipes import baseline_recipe, recipe_of
    from hwsim.workloads.rest import rest_of
    from hwsim.workloads.stored import workload_of_container
    from hwsim.workloads.topology import read_topology, write_topology
    from hwsim.workloads.trace import workload_of_model

_HOME = {
    "BUILT_IN": "door",
    "INPUT": "layer",
    "LAYER_OPS": "layer",
    "PlannedFile": "planned",
    "PlannedWorkload": "lower",
    "WEIGHTED_OPS": "layer",
    "Workload": "network",
    "WorkloadLayer": "layer",
    "baseline_recipe": "recipes",
    "plan_workload": "lower",
    "read_topology": "topology",
    "recipe_of": "recipes",
    "rest_of": "rest",
    "workload": "door",
    "workload_of_container": "stored",
    "workload_of_model": "trace",
    "write_topology": "topology",
}

__all__ = [
    "BUILT_IN",
    "INPUT",
    "LAYER_OPS",
    "WEIGHTED_OPS",
    "PlannedFile",
    "PlannedWorkload",
    "Workload",
    "WorkloadLayer",
    "baseline_recipe",
    "plan_workload",
    "read_topology",
    "recipe_of",
    "rest_of",
    "workload",
    "workload_of_container",
    "workload_of_model",
    "write_topology",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hwsim.workloads' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hwsim.workloads.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
