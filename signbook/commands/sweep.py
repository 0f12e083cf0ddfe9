"""``signbook sweep``: many accelerators, memories and recipes, and the front of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import MEMORY_HELP, Json
from signbook.commands.printing import print_rows, print_table, save_json, text
from signbook.commands.stopping import resumable
from vq.errors import ConfigError, SimulationError

if TYPE_CHECKING:
    from hwsim.sweep import Space

__all__ = ["run"]

_DASK_SECONDS = 10
_STATUSES = ("done", "refused", "failed")
_SWEEP = Defaults("hwsim.sweep.door", "sweep")


def run(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the sweep; made if missing.")],
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="*.vq.safetensors files, or workloads such as deit-tiny."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The space in YAML; options take the place of its axes."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=V,V", help="Values of one accelerator setting; repeatable."
        ),
    ] = None,
    memory: Annotated[list[str] | None, typer.Option(help=MEMORY_HELP + " Repeatable.")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="For workloads: ssvq:d=8,k=16, int4, or a YAML file. Repeatable."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="M,M", help="For files: rows of activations, as simulate.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="model (the default) or rtl, for files.")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(metavar="TRIALS", help="Let optuna choose points instead of taking all."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="What points are compared by; repeatable. "
            f"By default {', '.join(_SWEEP.objectives)}."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Points at once; by default one for each processor.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster to run on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a search.")] = _SWEEP.seed,
    retries: Annotated[
        int, typer.Option(help="How often a point whose worker process died is tried again.")
    ] = _SWEEP.retries,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep that the folder holds.")
    ] = False,
    json: Json = None,
) -> dict[str, Any]:
    """Measure many accelerators, memories and recipes, and find those that no other one beats.

    For example: sweep deit-tiny --out DIR --recipe ssvq:d=8,k=16 --set array=16x16,32x32
    --memory ddr4-2400 --memory lpddr5-6400. Whatever stops it, --resume goes on.
    """
    from hwsim.sweep import sweep
    from hwsim.workloads import recipe_of
    from signbook.files import output_folder, refuse_inputs
    from vq.progress import bar

    axes = {
        "targets": targets,
        "engine": engine,
        "memories": memory,
        "recipes": recipe,
        "rows": rows and rows.split(","),
    }
    outputs = [
        *(("--out", out / name) for name in ("points.jsonl", "sweep.json")),
        ("--json", json),
    ]
    refuse_inputs(outputs, [space, *(targets or ()), *(recipe or ()), *(memory or ())])
    checked = _space(space, axes, settings or ())
    named = [*checked.targets, *checked.memories, *checked.recipes]
    books = [book for text in checked.recipes for book in recipe_of(text).files]
    with output_folder(out, outputs, [*named, *books]), resumable(out, "point"):
        with _executor(dask) as (make, threads), bar("sweep", search or len(checked)) as advance:
            document = sweep(
                checked,
                out,
                objectives=objective or _SWEEP.objectives,
                search=search,
                seed=seed,
                executor=make,
                workers=workers or threads,
                retries=retries,
                resume=resume,
                progress=lambda row: advance(1, note=row["status"]),
            )
        _require_some(out, document)
    save_json(json, document)
    if table := _front(document):
        print_table("front: " + ", ".join(document["objectives"]), list(table[0]), table)
    counts = [(s, sum(row["status"] == s for row in document["rows"])) for s in _STATUSES]
    print_rows("points", [(status, text(count)) for status, count in counts])
    return document


def _space(path: Path | None, axes: Mapping[str, Any], settings: Sequence[str]) -> "Space":
    """The space of a file, with the axes and settings that were given in the place of its own."""
    from hwsim.sweep import Space, read_space

    document = read_space(path) if path is not None else {}
    document |= {axis: given for axis, given in axes.items() if given}
    if settings:
        document["accelerator"] = (document.get("accelerator") or {}) | _settings(settings)
    return Space.from_mapping(document)


def _require_some(out: Path, document: Mapping[str, Any]) -> None:
    rows = document["rows"]
    if all(row["status"] != "done" for row in rows):
        raise SimulationError(
            f"{out}: at least one of {len(rows)} points must be measured, not none; the "
            f"first was {rows[0]['status']}: {rows[0]['error']}"
        )


def _front(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The front of a sweep: on which of the axes that vary each point lies, and what came out."""
    from hwsim.sweep import OBJECTIVES

    axes = [_axes(row["point"]) for row in document["rows"]]
    varied = [name for name in axes[0] if len({each[name] for each in axes}) > 1]
    fields = (OBJECTIVES[name].field for name in document["objectives"])
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
    for setting in texts:
        key, equals, values = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ConfigError(f"--set must be KEY=VALUE,VALUE, not {setting!r}")
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
    from signbook.extras import require

    distributed = require("distributed", extra="dask", purpose="--dask")
    try:
        client = distributed.Client(address, timeout=_DASK_SECONDS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--dask must be the address of a scheduler that answers, such as "
            f"tcp://127.0.0.1:8786, not {address!r}"
        ) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ConfigError(f"--dask {address}: must have at least one worker, not none")
        yield client.get_executor, threads
