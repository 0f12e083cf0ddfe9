"""What a file is run with: its steps, what goes in, and what must come out."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwsim.measure.file import graph_of, runs_as_network
from hwsim.program import Program, Step, Tensor, steps_of_graph, steps_of_layers, work_of_layers
from vq.container import Container

__all__ = ["Work", "steps_of"]


def steps_of(container: Container, original: Container, rows: int | None) -> list[Step]:
    """Steps of a file without data; those of a network if it has a graph and there are no rows.

    Parameters
    ----------
    container, original : Container
        What is run, and the file whose graph it is: the same, or one of its baselines.
    rows : int or None
        Of activations for each layer.
    """
    if runs_as_network(original, rows):
        return steps_of_graph(graph_of(original, container), container)
    return steps_of_layers(container, rows or 1)


@dataclass(frozen=True, eq=False)
class Work:
    """Steps to run, what goes in, and what must come out by numpy."""

    steps: list[Step]
    inputs: dict[Tensor, NDArray[np.int8]]
    outputs: dict[Tensor, NDArray[np.int8]]

    @classmethod
    def of(cls, container: Container, original: Container, rows: int | None, seed: int = 0) -> Self:
        """Random inputs for the steps of :func:`steps_of`, and every value that they give."""
        if runs_as_network(original, rows):
            model = graph_of(original, container)
            steps = steps_of_graph(model, container)
            x = np.random.default_rng(seed).integers(-128, 128, (1, *model.graph.input.shape))
            values = model.trace(x.astype(np.int8))
            return cls(
                steps,
                {step.source: values[step.source.name][0] for step in steps[:1]},
                {step.target: values[step.name][0] for step in steps},
            )
        works = work_of_layers(container, rows or 1, seed=seed)
        return cls(
            [work.step for work in works],
            {work.step.source: work.inputs for work in works},
            {work.step.target: work.outputs for work in works},
        )

    def write(self, program: Program, image: bytearray) -> None:
        """Put the inputs where a program of the steps expects them."""
        for tensor, value in self.inputs.items():
            program.places[tensor].write(image, value)

    def is_in(self, program: Program, image: bytearray) -> bool:
        """Whether every value is in memory, bit for bit."""
        return all(
            np.array_equal(program.places[tensor].read(image).reshape(want.shape), want)
            for tensor, want in self.outputs.items()
        )
