"""Integer graphs of diffusion networks: scales by time step, and a host between layers.

``docs/spec-integer-graph.md`` specifies them as version 3. Reading and running one needs numpy
only.
"""

from vq.integer.steps.golden import LayerNumbers, StepModel
from vq.integer.steps.graph import HostNode, StepGraph
from vq.integer.steps.store import has_steps, read_steps, store_steps

__all__ = [
    "HostNode",
    "LayerNumbers",
    "StepGraph",
    "StepModel",
    "has_steps",
    "read_steps",
    "store_steps",
]
