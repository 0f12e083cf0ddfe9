"""A file and its baselines: programs of all of them, then runs, whatever runs them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from hwsim.measure.baselines import baseline_layers, require_baselines, with_weights_of
from hwsim.measure.checked import Engine
from hwsim.measure.document import Measurement, Reordered, Run
from hwsim.measure.order import in_order_of
from hwsim.measure.sampling import rest_of_host, sampling_of
from hwsim.memory import parse_memory
from hwsim.program.weights import check_layers
from rtl import AcceleratorConfig
from vq.container import ConfigError, Container, open_container, write_container
from vq.integer import IntegerModel, is_integer_tensor, read_integer
from vq.integer.steps import has_steps, read_steps
from vq.native import scratch_folder

__all__ = ["Progress", "graph_of", "measure", "opened", "runs_as_network", "runs_in_steps"]

#: Called with the name of a run, its data beats so far, and all its beats.
Progress = Callable[[str, int, int], None]


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
        See :func:`hwsim.simulate`.
    engine : str
        "rtl" or "model".
    prepare : callable
        Given the name of a run, its container and the compressed one, in the order of the
        instance (:func:`hwsim.measure.order.in_order_of`): assemble the program, and
        return what runs it and gives its run of the document.
    """
    described = parse_memory(memory).describe()
    require_baselines(methods)
    if rows is not None and rows < 1:
        raise ConfigError(f"rows must be at least 1, not {rows}")
    with (
        opened(path, config) as (container, reordered),
        _baselines(container, dict.fromkeys(methods)) as others,
    ):
        plans = [("compressed", container), *others]
        # All programs exist before the first one is run.
        ready = {name: prepare(name, one, container) for name, one in plans}
        runs = {name: run() for name, run in ready.items()}
        more = _beside(container, engine, config, rows)
    if reordered is not None:
        runs["compressed"] = runs["compressed"].model_copy(update={"reordered": reordered})
    found = Measurement.of(engine, config.to_mapping(), described, runs, **more)
    return found.to_json()


def _beside(
    container: Container, engine: Engine, config: AcceleratorConfig, rows: int | None
) -> dict[str, Any]:
    """What a document says beside its runs: of what the accelerator does not run."""
    if not runs_in_steps(container, rows):
        return {"runtime": container.runtime_facts().get("runtime", [])}
    model = read_steps(container)
    calls = len(model.graph.times) if engine == "model" else 1
    return {
        "sampling": sampling_of(model, calls),
        "rest": rest_of_host(model, config, calls),
    }


@contextmanager
def opened(
    path: str | PathLike[str], config: AcceleratorConfig
) -> Iterator[tuple[Container, Reordered | None]]:
    """A file in the order of an instance, and what was re-ordered for that, if anything.

    Raises
    ------
    ConfigError
        If it names another codebook than the instance has in ROM, or as :func:`in_order_of`.
    ContainerError
        If the file is damaged.
    """
    streamer = config.streamer
    with open_container(path, rom=streamer.roms) as stored:
        # What must come out cannot be computed from a codebook that the instance does not have.
        check_layers([entry for entry in stored.layers if entry.geometry.in_rom], streamer)
        with in_order_of(stored, config) as found:
            yield found


def runs_as_network(container: Container, rows: int | None) -> bool:
    """Whether a container's integer graph is run, and not each layer by itself."""
    return rows is None and any(is_integer_tensor(name) for name in container.kept_names)


def runs_in_steps(container: Container, rows: int | None) -> bool:
    """Whether a container's network is run step by step, the host taking part."""
    return rows is None and has_steps(container)


def graph_of(original: Container, container: Container) -> IntegerModel:
    """The original file's integer graph, with the weights of one of its baselines.

    Where neither has groups, the integers are the same, and so are the numbers behind them.
    """
    model, files = read_integer(original), (original, container)
    grouped = any(entry.geometry.group for file in files for entry in file.layers)
    if grouped and container is not original:
        return with_weights_of(model, original, container)
    return model


@contextmanager
def _baselines(
    container: Container, methods: Iterable[str]
) -> Iterator[list[tuple[str, Container]]]:
    """The same integers in other methods, in files that live as long as the context."""
    with scratch_folder() as folder:
        opened = []
        try:
            for method in methods:
                path = folder / f"{method}.vq.safetensors"
                write_container(path, layers=baseline_layers(container, method))
                opened.append((method, open_container(path)))
            yield opened
        finally:
            for _, other in opened:
                other.close()
