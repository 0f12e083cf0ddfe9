"""Sweeps by the names and texts of a command line, with a progress bar."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwsim.sweep import DEFAULT_OBJECTIVES, OBJECTIVES, Space, read_space, sweep
from signbook.extras import require
from vq.container import ConfigError, SimulationError
from vq.progress import bar

__all__ = ["front_table", "sweep_named"]

_DASK_SECONDS = 10


def sweep_named(
    targets: Sequence[str],
    out: Path,
    *,
    space: Path | None = None,
    engine: str | None = None,
    settings: Sequence[str] = (),
    memories: Sequence[str] = (),
    recipes: Sequence[str] = (),
    rows: str | None = None,
    objectives: Sequence[str] = (),
    search: int | None = None,
    workers: int | None = None,
    dask: str | None = None,
    seed: int = 0,
    retries: int = 1,
    resume: bool = False,
) -> dict[str, Any]:
    """Run :func:`hwsim.sweep.sweep` and show how far it is.

    Parameters
    ----------
    targets, engine, memories, recipes
        Axes of the space, in the place of what the file ``space`` says of them, if given.
    out : Path
    space : Path, optional
        YAML file, see :func:`hwsim.sweep.read_space`.
    settings : sequence of str
        ``KEY=VALUE,VALUE`` of the accelerator; each in the place of what the file says.
    rows : str, optional
        Whole numbers with commas between.
    dask : str, optional
        Address of a scheduler whose workers evaluate the points.
    objectives, search, workers, seed, retries, resume
        See :func:`hwsim.sweep.sweep`.

    Raises
    ------
    ConfigError
        If an argument is impossible, the scheduler cannot be reached, or a package is missing.
    SimulationError
        If there is no point that could be measured.
    """
    document = read_space(space) if space is not None else {}
    for axis, given in (
        ("targets", targets),
        ("engine", engine),
        ("memories", memories),
        ("recipes", recipes),
        ("rows", rows and rows.split(",")),
    ):
        if given:
            document[axis] = given
    if settings:
        document["accelerator"] = (document.get("accelerator") or {}) | _settings(settings)
    checked = Space.from_mapping(document)
    with _executor(dask) as (make, threads), bar("sweep", search or len(checked)) as advance:

        def show(row: Mapping[str, Any]) -> None:
            advance(1, note=row["status"])

        found = sweep(
            checked,
            out,
            objectives=tuple(objectives) or DEFAULT_OBJECTIVES,
            search=search,
            seed=seed,
            executor=make,
            workers=workers or threads,
            retries=retries,
            resume=resume,
            progress=show,
        )
    if all(row["status"] != "done" for row in found["rows"]):
        first = found["rows"][0]
        raise SimulationError(
            f"{out}: at least one of {len(found['rows'])} points must be measured, not none; the "
            f"first was {first['status']}: {first['error']}"
        )
    return found


def front_table(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The front of a sweep: on which of the axes that vary each point lies, and what came out."""
    axes = [_axes(row["point"]) for row in document["rows"]]
    varied = [name for name in axes[0] if len({each[name] for each in axes}) > 1]
    fields = (OBJECTIVES[name][0] for name in document["objectives"])
    measures = dict.fromkeys((*fields, "speedup", "bits_per_weight"))
    return [
        {name: "" if axes[index][name] is None else axes[index][name] for name in varied}
        | {name: document["rows"][index][name] for name in measures}
        for index in document["pareto"]
    ]


def _axes(point: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in point.items() if name != "accelerator"}
    return {**named, "target": Path(point["target"]).name, **point["accelerator"]}


def _settings(texts: Sequence[str]) -> dict[str, list[str]]:
    """``KEY=VALUE,VALUE`` of a command line by key."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"--set must be KEY=VALUE,VALUE, not {text!r}")
        found.setdefault(key, []).extend(value.strip() for value in values.split(","))
    return found


@contextmanager
def _executor(
    address: str | None,
) -> Iterator[tuple[Callable[[], Executor] | None, int | None]]:
    """What makes executors on a Dask cluster, and how many threads it has; nothing without one."""
    if address is None:
        yield None, None
        return
    distributed = require("distributed", extra="dask", purpose="--dask")
    try:
        client = distributed.Client(address, timeout=_DASK_SECONDS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--dask must be the address of a scheduler that answers, such as "
            f"tcp://127.0.0.1:8786, not {address!r} ({error})"
        ) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ConfigError(f"--dask {address}: must have at least one worker, not none")
        yield client.get_executor, threads
