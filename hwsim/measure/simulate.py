"""Measure a container on the generated hardware, beside the same layers as int8."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cycles import predict
from hwsim.defaults import DEFAULT_MEMORY
from hwsim.measure.baselines import baseline_layers, require_baselines, with_weights_of
from hwsim.measure.checked import Engine
from hwsim.measure.compare import require_prediction
from hwsim.measure.counts import run_of
from hwsim.measure.document import Measurement, Run
from hwsim.memory import absolute_memory, parse_memory
from hwsim.program import Program, Step, Tensor, assemble, steps_of_graph, work_of_layers
from hwsim.program.weights import check_layers
from hwsim.simulator.accelerator import Surroundings, run_program
from rtl import AcceleratorConfig
from rtl.program import RunStatus
from vq.container import (
    ConfigError,
    Container,
    SimulationError,
    open_container,
    write_container,
)
from vq.integer import IntegerModel, is_integer_tensor, read_integer

__all__ = [
    "graph_of",
    "measure",
    "runs_as_network",
    "simulate",
]

DEFAULT_TIMEOUT_CYCLES = 1 << 20

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class _Work:
    """Steps to run, what goes in, and what must come out."""

    steps: list[Step]
    inputs: dict[Tensor, NDArray[np.int8]]
    outputs: dict[Tensor, NDArray[np.int8]]


def simulate(
    path: str | PathLike[str],
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
    progress: Progress | None = None,
    check: bool = False,
) -> dict[str, Any]:
    """Run a container on the RTL under Verilator and report what it cost.

    The file's own bytes are the memory. A file with an integer graph runs as a whole network on
    one random input, and every value of the graph is compared with numpy; of any other file, or if
    ``rows`` is given, every layer's matrix multiplies that many rows of random activations
    (default 1). Baselines are the same layers once more on the same instance, bus, memory and
    activations: int8 with the same integer weights, int4, int3 and int2 with the decoded weights
    rounded in groups (:func:`hwsim.measure.baselines.baseline_layers`).

    Parameters
    ----------
    path : path
        A ``*.vq.safetensors`` file.
    config : AcceleratorConfig, optional
        The instance; default values if left out. Layers may name the codebook that it has in
        ROM, and then must.
    memory : str
        Memory model, see :func:`hwsim.memory.parse_memory`.
    rows : int, optional
        Rows M of activations for each layer.
    methods : sequence of str
        Baselines to run as well, of :data:`hwsim.measure.baselines.BASELINES`. Without int8,
        ``speedup`` and ``traffic_ratio`` are None.
    progress : callable, optional
        Called now and then with the run's name, its data beats so far, and all its beats.
    check : bool
        Require of every run that the cycle model counts the same, see
        :func:`hwsim.measure.compare.require_prediction`.

    Returns
    -------
    dict
        The document ``signbook.simulate/1`` with engine "rtl".

    Raises
    ------
    ConfigError
        If the instance cannot run a layer (each is named with the limit), or a baseline or the
        memory is unknown. Nothing has been simulated then.
    ContainerError
        If the file is damaged.
    SimulationError
        If a tool is missing, or the hardware reports an error or breaks a rule; with ``check``,
        also if the model counts something else, with a table of the differences.
    """
    config = config or AcceleratorConfig()
    memory = absolute_memory(memory)  # the simulator runs in a folder of its own

    def run(name: str, container: Container, original: Container) -> Callable[[], Run]:
        work = _work(container, original, rows)
        program = assemble(work.steps, container, config)
        return lambda: _run(name, program, work, config, memory, progress, check)

    return measure(path, "rtl", run, config=config, memory=memory, rows=rows, methods=methods)


def measure(
    path: str | PathLike[str],
    engine: Engine,
    prepare: Callable[[str, Container, Container], Callable[[], Run]],
    *,
    config: AcceleratorConfig,
    memory: str,
    rows: int | None,
    methods: Sequence[str],
) -> dict[str, Any]:
    """The document of a file and its baselines, whatever runs them.

    Parameters
    ----------
    path, config, memory, rows, methods
        See :func:`simulate`.
    engine : str
        "rtl" or "model".
    prepare : callable
        Given the name of a run, its container and the original one: assemble the program, and
        return what runs it and gives its run of the document.
    """
    described = parse_memory(memory).describe()
    require_baselines(methods)
    if rows is not None and rows < 1:
        raise ConfigError(f"rows must be at least 1, not {rows}")
    streamer = config.streamer
    with open_container(path, rom=streamer.roms) as container:
        # What must come out cannot be computed from a codebook that the instance does not have.
        check_layers([entry for entry in container.layers if entry.geometry.in_rom], streamer)
        plans = [("compressed", container)]
        with _baselines(container, dict.fromkeys(methods)) as others:
            plans += others
            # All programs exist before the first one is run.
            ready = {name: prepare(name, one, container) for name, one in plans}
            runs = {name: run() for name, run in ready.items()}
    return Measurement.of(engine, config.to_mapping(), described, runs).to_json()


def runs_as_network(container: Container, rows: int | None) -> bool:
    """Whether a container's integer graph is run, and not each layer by itself."""
    return rows is None and any(is_integer_tensor(name) for name in container.kept_names)


def graph_of(original: Container, container: Container) -> IntegerModel:
    """The original file's integer graph, with the weights of one of its baselines.

    Where neither has groups, the integers are the same, and so are the numbers behind them.
    """
    model, files = read_integer(original), (original, container)
    grouped = any(entry.geometry.group for file in files for entry in file.layers)
    if grouped and container is not original:
        return with_weights_of(model, original, container)
    return model


def _work(container: Container, original: Container, rows: int | None) -> _Work:
    """What to run; the graph is that of the original file."""
    if runs_as_network(original, rows):
        model = graph_of(original, container)
        steps = steps_of_graph(model, container)
        x = np.random.default_rng(0).integers(-128, 128, (1, *model.graph.input.shape))
        values = model.trace(x.astype(np.int8))
        return _Work(
            steps,
            {step.source: values[step.source.name][0] for step in steps[:1]},
            {step.target: values[step.name][0] for step in steps},
        )
    works = work_of_layers(container, rows or 1)
    return _Work(
        [work.step for work in works],
        {work.step.source: work.inputs for work in works},
        {work.step.target: work.outputs for work in works},
    )


@contextmanager
def _baselines(
    container: Container, methods: Sequence[str] | dict[str, None]
) -> Iterator[list[tuple[str, Container]]]:
    """The same integers in other methods, in files that live as long as the context."""
    with tempfile.TemporaryDirectory(prefix="signbook-") as folder:
        opened = []
        try:
            for method in methods:
                path = Path(folder) / f"{method}.vq.safetensors"
                write_container(path, layers=baseline_layers(container, method))
                opened.append((method, open_container(path)))
            yield opened
        finally:
            for _, other in opened:
                other.close()


def _run(
    name: str,
    program: Program,
    work: _Work,
    config: AcceleratorConfig,
    memory: str,
    progress: Progress | None,
    check: bool,
) -> Run:
    """One run of the document, in RTL."""
    image = program.image()
    for tensor, value in work.inputs.items():
        program.places[tensor].write(image, value)
    beats = sum(layer.read_bytes for layer in program.layers) // config.bus_bytes
    (outcome,) = run_program(
        config,
        program,
        image,
        Surroundings(memory=memory, timeout_cycles=DEFAULT_TIMEOUT_CYCLES),
        progress and (lambda done: progress(name, done, beats)),
    )
    if outcome.status != RunStatus.OK:
        failed = program.layers[outcome.failed_layer].step.name
        raise SimulationError(f"layer {failed!r}: status must be OK, not {outcome.status.name}")
    if check:
        predicted = predict(config, program, parse_memory(memory))
        require_prediction(program, outcome, predicted, parse_memory(memory))
    if progress is not None:
        progress(name, beats, beats)
    exact = all(
        np.array_equal(program.places[tensor].read(outcome.image).reshape(want.shape), want)
        for tensor, want in work.outputs.items()
    )
    return run_of(program, outcome, config, exact)
