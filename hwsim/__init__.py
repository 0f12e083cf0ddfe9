"""Measurement: containers on simulated hardware.

:func:`simulate` runs the RTL, :func:`estimate` the cycle model, :func:`estimate_workload` the model
for networks without a file; :func:`simulate_turns` and :func:`estimate_turns` run several files on
one instance. :mod:`hwsim.simulator.verilator` is the only module that starts a simulator.
The names below are imported when they are first used: the process inside the simulator needs
few of them, and a missing hardware package is named by the first call, not by the import.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from hwsim.defaults import DEFAULT_MEMORY
from vq.errors import SimulationError

if TYPE_CHECKING:
    from hwsim.measure.baselines import BASELINES
    from hwsim.measure.estimate import estimate
    from hwsim.measure.simulate import simulate
    from hwsim.measure.turns import estimate_turns, simulate_turns
    from hwsim.measure.workload import estimate_workload
    from hwsim.memory import Dram, IdealMemory, MemoryModel, parse_memory

_HOME = {
    "BASELINES": "hwsim.measure.baselines",
    "Dram": "hwsim.memory",
    "IdealMemory": "hwsim.memory",
    "MemoryModel": "hwsim.memory",
    "estimate": "hwsim.measure.estimate",
    "estimate_turns": "hwsim.measure.turns",
    "estimate_workload": "hwsim.measure.workload",
    "parse_memory": "hwsim.memory",
    "simulate": "hwsim.measure.simulate",
    "simulate_turns": "hwsim.measure.turns",
}

__all__ = [
    "BASELINES",
    "DEFAULT_MEMORY",
    "Dram",
    "IdealMemory",
    "MemoryModel",
    "estimate",
    "estimate_turns",
    "estimate_workload",
    "parse_memory",
    "simulate",
    "simulate_turns",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
    if _HOME[name] != "hwsim.memory" and importlib.util.find_spec("amaranth") is None:
        raise SimulationError("amaranth must be installed: pip install 'signbook[hw]'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
