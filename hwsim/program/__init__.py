"""Programs for the accelerator: from an integer graph, or from layers alone, to bytes in memory.

==========  ==================================================================
module      what it is about
==========  ==================================================================
step        what is done one after another; ``graph`` and ``layers`` make steps
limits      what an instance cannot run
strips      rows of a step that one descriptor can give
memory      where tensors lie behind the file; ``buffers`` where their rows lie
weights     descriptors of weight streams, and their bytes in the file
numbers     parameters of requantisation
fields      descriptors of windows and outputs
operations  nodes of a graph of tokens, as the vector unit is told of them
assemble    all of it as a program
records     what the accelerator writes about each descriptor
==========  ==================================================================
"""

from hwsim.program.assemble import Program, ProgramLayer, assemble
from hwsim.program.graph import steps_of_graph, steps_of_turns
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
    "steps_of_turns",
    "work_of_layers",
]
