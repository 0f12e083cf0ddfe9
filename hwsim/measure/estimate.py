"""Measure a container by the cycle model: the document of :func:`hwsim.simulate` in less time."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

from hwsim.cycles import predict
from hwsim.defaults import DEFAULT_MEMORY
from hwsim.measure.counts import run_of
from hwsim.measure.document import Run
from hwsim.measure.file import Progress, measure, runs_in_steps
from hwsim.measure.sampling import Call
from hwsim.measure.work import steps_of
from hwsim.memory import parse_memory
from hwsim.program import assemble
from rtl import AcceleratorConfig
from vq.container import Container

__all__ = ["estimate"]


def estimate(
    path: str | PathLike[str],
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    rows: int | None = None,
    methods: Sequence[str] = ("int8",),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict what a container costs, without simulating RTL.

    The same programs as those of :func:`hwsim.simulate`, and the same document: every number in it
    is equal with an ideal memory, but for ``bit_exact``, which is None because no data are moved.
    Of a graph of time steps, this is the whole sampling run: as many calls as there are steps, all
    of which cost the same.

    Parameters
    ----------
    path, config, memory, rows, methods, progress
        See :func:`hwsim.simulate`.

    Returns
    -------
    dict
        The document ``signbook.simulate/2`` with engine "model".

    Raises
    ------
    ConfigError, ContainerError
        See :func:`hwsim.simulate`.
    SimulationError
        If there is no C compiler.
    """
    config = config or AcceleratorConfig()

    def prepare(name: str, container: Container, original: Container) -> Callable[[], Run]:
        def told(done: int) -> None:
            if progress is not None:
                progress(name, done, beats)

        if runs_in_steps(original, rows):
            call = Call.of(container, original, config)
            beats = call.read_bytes // config.bus_bytes
            calls = len(call.model.graph.times)
            return lambda: Run.total([(calls, call.predicted(config, memory, told))])
        program = assemble(steps_of(container, original, rows), container, config)
        beats = sum(layer.read_bytes for layer in program.layers) // config.bus_bytes

        def run() -> Run:
            counts = predict(config, program, parse_memory(memory), progress=told)
            return run_of(program, counts, config, exact=None)

        return run

    return measure(path, "model", prepare, config=config, memory=memory, rows=rows, methods=methods)
