"""Programs for the accelerator: from an integer graph, or from layers alone, to bytes in memory."""

from hwsim.program.assemble import Program, ProgramLayer, assemble
from hwsim.program.graph import steps_of_graph
from hwsim.program.layers import LayerWork, steps_of_layers, work_of_layers
from hwsim.program.step import Numbers, Step, Tensor

__all__ = [
    "LayerWork",
    "Numbers",
    "Program",
    "ProgramLayer",
    "Step",
    "Tensor",
    "assemble",
    "steps_of_graph",
    "steps_of_layers",
    "work_of_layers",
]
