"""A diffusion network, step by step: programs of the device, and what the host does between."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwsim.cycles import predict
from hwsim.measure.compare import require_ok, require_prediction
from hwsim.measure.counts import run_of
from hwsim.measure.document import Rest, RestLayer, Run, Sampling
from hwsim.memory import parse_memory
from hwsim.program import Program, Step, Tensor, assemble, steps_of_turns
from hwsim.program.memory import Space
from hwsim.simulator.accelerator import Surroundings, run_programs
from hwsim.workloads.rest import ASSUMED
from rtl import AcceleratorConfig
from vq.container import Container, Span
from vq.integer.graph import Node
from vq.integer.steps import HostNode, StepModel, read_steps

__all__ = ["Call", "rest_of_host", "sampling_of"]

#: What the host does not compute: values that are there, or that only have another shape.
_NOTHING = ("input", "table", "reshape")


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the network at a time step, laid out: a program for each turn of the device.

    Attributes
    ----------
    model : StepModel
        With the weights of what is run.
    time : int
    programs : list of Program
        In one memory, where values stay.
    holds_book : list of bool
        Whether a program before has loaded a codebook.
    """

    model: StepModel
    time: int
    programs: list[Program]
    holds_book: list[bool]

    @classmethod
    def of(
        cls, container: Container, original: Container, config: AcceleratorConfig, place: int = 0
    ) -> Self:
        """The call at the time step of a place, of a file or of one of its baselines.

        Raises
        ------
        ConfigError
            If the instance cannot run it.
        ContainerError
            If the file is damaged.
        """
        model = read_steps(original)
        if container is not original:
            model = model.with_weights_of(container)
        time = model.graph.times[place]
        space = Space()
        base = space.take_pages(container.file_bytes)
        programs, holds_book, held = [], [], None
        for steps in steps_of_turns(model, time, container):
            holds_book.append(held is not None)
            programs.append(assemble(steps, container, config, space=space, base=base, held=held))
            held = _loaded(programs[-1]) or held
        return cls(model, time, programs, holds_book)

    @property
    def read_bytes(self) -> int:
        """All that is read, in all turns."""
        return sum(layer.read_bytes for program in self.programs for layer in program.layers)

    def predicted(
        self, config: AcceleratorConfig, memory: str, told: Callable[[int], None] | None = None
    ) -> Run:
        """What the call costs by the cycle model; each turn begins on memory not used yet."""
        runs, before = [], 0
        for program, holds in zip(self.programs, self.holds_book, strict=True):
            counts = predict(config, program, parse_memory(memory), holds_book=holds)
            runs.append(run_of(program, counts, config, exact=None))
            before += counts.beats_read
            if told is not None:
                told(before)
        return Run.total([(1, run) for run in runs])

    def simulated(
        self,
        config: AcceleratorConfig,
        around: Surroundings,
        told: Callable[[int], None] | None = None,
        *,
        check: bool = False,
        waves: Path | None = None,
    ) -> Run:
        """What the call costs in RTL, on one random input.

        All that the host puts between turns is in memory before the first one starts, from the
        golden model. What each turn leaves is compared with that model: while all of it is equal,
        a host that waited would have put the same there.
        """
        inputs, outputs = self._values()
        image = bytearray(max(program.end for program in self.programs))
        for program in self.programs:
            program.write(image)
        for tensor, value in inputs.items():
            self.programs[0].places[tensor].write(image, value)
        outcomes = run_programs(config, self.programs, image, around, told, waves)
        runs = []
        for program, holds, outcome in zip(self.programs, self.holds_book, outcomes, strict=False):
            require_ok(program, outcome)
            if check:
                memory = parse_memory(around.memory)
                predicted = predict(config, program, memory, holds_book=holds)
                require_prediction(program, outcome, predicted, memory)
            exact = all(
                _holds(program, outcome.image, step.target, outputs[step.target])
                for step in _steps(program)
            )
            runs.append(run_of(program, outcome, config, exact))
        if told is not None:
            told(self.read_bytes // config.bus_bytes)
        exact = all(run.bit_exact is True for run in runs)
        return Run.total([(1, run) for run in runs]).model_copy(update={"bit_exact": exact})

    def _values(self) -> tuple[dict[Tensor, NDArray[np.int8]], dict[Tensor, NDArray[np.int8]]]:
        """What the host puts into memory, and what steps leave there."""
        graph = self.model.graph
        random = np.random.default_rng(0)
        x = random.standard_normal((1, *graph.nodes[0].shape), np.float32)
        classes = random.integers(0, graph.classes, 1) if graph.classes else None
        values = self.model.trace(x, self.time, classes)
        steps = [step for program in self.programs for step in _steps(program)]
        given = {step.target for step in steps}
        read = {tensor for step in steps for tensor in step.reads} - given
        inputs = {tensor: values[tensor.name][0].view(np.int8) for tensor in read}
        return inputs, {tensor: values[tensor.name][0].view(np.int8) for tensor in given}


def _steps(program: Program) -> Iterator[Step]:
    """Each step once, whatever strips it has."""
    return iter(dict.fromkeys(layer.step for layer in program.layers))


def _holds(program: Program, image: bytearray, tensor: Tensor, want: NDArray[np.int8]) -> bool:
    """Whether a value is in memory, bit for bit."""
    return np.array_equal(program.places[tensor].read(image).reshape(want.shape), want)


def _loaded(program: Program) -> Span | None:
    """The codebook that a program leaves in the instance, if it loads one."""
    weights = [layer.weights for layer in program.layers if layer.weights]
    loaded = [layer.entry.codebook for layer in weights if layer.codebook_bytes]
    return loaded[-1] if loaded else None


def sampling_of(model: StepModel, calls: int) -> Sampling:
    """What a document says of the calls that its runs are of."""
    nodes = model.graph.nodes
    known = {node.name: node for node in nodes}
    to_device = sum(math.prod(n.shape) for n in nodes if n.op == "quantize")
    read = {name for n in nodes if isinstance(n, HostNode) for name in n.inputs}
    read.add(nodes[-1].name)
    from_device = sum(math.prod(known[n].shape) for n in read if isinstance(known[n], Node))
    return Sampling(
        times=list(model.graph.times),
        calls=calls,
        turns=len(model.graph.turns()[1::2]),
        bytes_to_device=calls * to_device,
        bytes_from_device=calls * from_device,
    )


def rest_of_host(model: StepModel, config: AcceleratorConfig, calls: int) -> Rest:
    """What the host computes in so many calls: float32, by name, and how long it is taken to be."""
    known = {node.name: node for node in model.graph.nodes}
    layers = []
    for node in model.graph.nodes:
        if isinstance(node, Node) or node.op in _NOTHING:
            continue
        elements, macs = math.prod(node.shape), 0
        cycles = -(-elements // config.columns)
        if node.op == "attention":
            q, k, v = (known[name].shape for name in node.inputs)
            macs = q[0] * q[1] * k[1] * (q[2] + v[2])
            cycles = -(-macs // (config.rows * config.columns))
        layers.append(RestLayer(
            name=node.name, op=node.op, macs=calls * macs, elements=calls * elements,
            cycles=calls * cycles,
        ))  # fmt: skip
    return Rest(
        layers=layers,
        macs=sum(layer.macs for layer in layers),
        elements=sum(layer.elements for layer in layers),
        cycles=sum(layer.cycles for layer in layers),
        assumed=ASSUMED,
    )
