"""A whole sweep: resumes, runs, keeps the documents."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from hwsim.sweep.checks import count_problem
from hwsim.sweep.crew import Crew, Evaluate
from hwsim.sweep.evaluate import evaluate
from hwsim.sweep.front import front_of_rows
from hwsim.sweep.grid import Grid, Plan
from hwsim.sweep.journal import Journal
from hwsim.sweep.local import local_pool
from hwsim.sweep.objectives import DEFAULT_OBJECTIVES, objective_problems
from hwsim.sweep.resume import earlier_of, require_same
from hwsim.sweep.search import Search, optuna_version, search_problems
from hwsim.sweep.space import Point, Space
from vq.container import ConfigError, OutputError, atomic_file, bulleted
from vq.errors import ResumeError
from vq.version import TOOL

__all__ = ["Told", "sweep"]

#: Called with a row when its point is finished, or found finished.
Told = Callable[[Mapping[str, Any]], None]


def sweep(
    space: Space,
    out: str | os.PathLike[str],
    *,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    search: int | None = None,
    seed: int = 0,
    executor: Callable[[], Executor] | None = None,
    workers: int | None = None,
    retries: int = 1,
    resume: bool = False,
    progress: Told | None = None,
    evaluate: Evaluate = evaluate,
) -> dict[str, Any]:
    """Measure the points of a space, all of them or those that a search chooses.

    Each row is appended to ``points.jsonl`` when it is there; a sweep that was stopped, by
    whatever, goes on with ``resume`` and gives the document that it would have given.
    ``sweep.json`` says from the start what the sweep is, and at its end holds all rows. They are
    in the order of the space, or of the trials, and depend neither on the executor nor on the
    number of workers, but for ``seconds``. What a search chooses depends on how many trials are
    under way at once.

    Parameters
    ----------
    space : Space
    out : path
        Folder; made if missing.
    objectives : sequence of str
        Of ``OBJECTIVES``: what the front, and a search, are about.
    search : int, optional
        Trials of a search; all points if left out.
    seed : int
        Of a search.
    executor : callable, optional
        Makes a :class:`concurrent.futures.Executor`, and a new one if that breaks; by default
        :func:`~hwsim.sweep.local_pool` with ``workers`` processes.
    workers : int, optional
        Points under way at once; by default one for each processor.
    retries : int
        How often a point whose worker process died is tried again.
    resume : bool
        Go on with the sweep that the folder holds, if it does.
    progress : callable, optional
    evaluate : callable
        What measures a point: a top-level function of a module.

    Returns
    -------
    dict
        The document ``signbook.sweep/1``.

    Raises
    ------
    ConfigError
        If an argument is impossible, or optuna is needed and absent.
    ResumeError
        If the folder holds rows and ``resume`` is not given, or is that of another sweep.
    OutputError
        If the folder cannot be written, at the start or later.
    SimulationError
        If the executor gives up.
    """
    workers = workers if workers is not None else len(os.sched_getaffinity(0))
    problems = objective_problems(objectives)
    problems += count_problem("workers", workers, 1) + count_problem("retries", retries, 0)
    problems += count_problem("seed", seed, 0)
    if search is not None:
        problems += search_problems(space, objectives, search)
    if problems:
        raise ConfigError(bulleted("sweep", problems))

    folder = Path(out)
    path = folder / "sweep.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: must be a folder that can be written, but {error.strerror}; "
            "choose another --out"
        ) from error
    with Journal(folder / "points.jsonl") as journal:
        earlier = earlier_of(path)
        if journal.rows and not resume:
            raise ResumeError(
                f"{folder}: must hold no points yet, but has {len(journal.rows)}; "
                "go on with --resume, or choose another --out"
            )
        now = _header(space, objectives, search, seed, workers)
        if journal.rows:
            require_same(path, earlier or {}, now)
            if search is not None and earlier is not None:
                now["search"]["window"] = earlier["search"]["window"]
        plan: Plan = Grid(space)
        if search is not None:
            window = now["search"]["window"]
            plan = Search(space, objectives, trials=search, seed=seed, window=window)
        _write(path, now)
        make = executor or partial(local_pool, workers)
        crew = Crew(make, size=workers, retries=retries, evaluate=evaluate)
        try:
            rows = _run(space, plan, crew, journal, progress)
        finally:
            crew.close()
        document = now | {"rows": rows, "pareto": front_of_rows(rows, objectives)}
        _write(path, document)
        return document


def _header(
    space: Space, objectives: Sequence[str], search: int | None, seed: int, workers: int
) -> dict[str, Any]:
    """The document without rows."""
    versions = {"signbook": TOOL}
    if search is not None:
        versions["optuna"] = optuna_version()
    return {
        "schema": "signbook.sweep/1",
        "space": space.to_json(),
        "objectives": list(objectives),
        "search": None if search is None else {"trials": search, "seed": seed, "window": workers},
        "versions": versions,
        "files": space.files(),
        "rows": [],
        "pareto": [],
    }


def _run(
    space: Space, plan: Plan, crew: Crew, journal: Journal, progress: Told | None
) -> list[dict[str, Any]]:
    """Evaluate what the plan asks for and is not in the journal; rows in the plan's order."""
    asked: list[Point] = []

    def tell(point: Point) -> None:
        row = journal.rows[point]
        plan.tell(point, row)
        if progress is not None:
            progress(row)

    while True:
        while crew.has_room and (point := plan.ask()) is not None:
            asked.append(point)
            if point in journal.rows:
                tell(point)
            else:
                crew.add(point, space.work(point))
        if crew.is_idle:
            return [journal.rows[point] for point in asked]
        for point, found in crew.finished():
            journal.append(point, {"point": point.to_json(), **found})
            tell(point)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
