"""Measure a container on the generated hardware, beside the same layers as int8."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hwsim.cycles import predict
from hwsim.defaults import DEFAULT_MEMORY
from hwsim.measure.compare import require_ok, require_prediction
from hwsim.measure.counts import run_of
from hwsim.measure.document import Run
from hwsim.measure.file import Progress, measure, runs_in_steps
from hwsim.measure.sampling import Call
from hwsim.measure.work import Work
from hwsim.memory import absolute_memory, parse_memory
from hwsim.program import Program, assemble
from hwsim.simulator.accelerator import Surroundings, run_program
from rtl import AcceleratorConfig
from vq.container import Container

__all__ = ["simulate"]

DEFAULT_TIMEOUT_CYCLES = 1 << 20


def simulate(
    path: str | PathLike[str],
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
    progress: Progress | None = None,
    check: bool = False,
    waves: str | PathLike[str] | None = None,
) -> dict[str, Any]:
    """Run a container on the RTL under Verilator and report what it cost.

    The file's own bytes are the memory, or those of a temporary copy whose streams are re-ordered
    for the instance: ``reordered`` of the compressed run says from and to how many outputs per
    block. A file with an integer graph runs as a whole network on
    one random input, and every value of the graph is compared with numpy. A graph of time steps
    runs once, at the sampler's first step: every start of the device between two doings of the
    host, one after another in one memory. Of any other file, or if
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
    waves : path, optional
        File for all signals of the compressed run in every cycle, in FST. It is there as a whole,
        or not at all.

    Returns
    -------
    dict
        The document ``signbook.simulate/2`` with engine "rtl".

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
    OutputError
        If ``waves`` cannot be written.
    """
    config = config or AcceleratorConfig()
    memory = absolute_memory(memory)  # the simulator runs in a folder of its own

    file = None if waves is None else Path(waves)

    def run(name: str, container: Container, original: Container) -> Callable[[], Run]:
        drawn = file if container is original else None
        if runs_in_steps(original, rows):
            call = Call.of(container, original, config)
            around = Surroundings(memory=memory, timeout_cycles=DEFAULT_TIMEOUT_CYCLES)
            told = progress and _told(progress, name, call.read_bytes // config.bus_bytes)
            return lambda: call.simulated(config, around, told, check=check, waves=drawn)
        work = Work.of(container, original, rows)
        program = assemble(work.steps, container, config)
        return lambda: _run(name, program, work, config, memory, progress, check, drawn)

    return measure(path, "rtl", run, config=config, memory=memory, rows=rows, methods=methods)


def _told(progress: Progress, name: str, beats: int) -> Callable[[int], None]:
    return lambda done: progress(name, done, beats)


def _run(
    name: str,
    program: Program,
    work: Work,
    config: AcceleratorConfig,
    memory: str,
    progress: Progress | None,
    check: bool,
    waves: Path | None,
) -> Run:
    """One run of the document, in RTL."""
    image = program.image()
    work.write(program, image)
    beats = sum(layer.read_bytes for layer in program.layers) // config.bus_bytes
    (outcome,) = run_program(
        config,
        program,
        image,
        Surroundings(memory=memory, timeout_cycles=DEFAULT_TIMEOUT_CYCLES),
        progress and (lambda done: progress(name, done, beats)),
        waves,
    )
    require_ok(program, outcome)
    if check:
        predicted = predict(config, program, parse_memory(memory))
        require_prediction(program, outcome, predicted, parse_memory(memory))
    if progress is not None:
        progress(name, beats, beats)
    return run_of(program, outcome, config, work.is_in(program, outcome.image))
