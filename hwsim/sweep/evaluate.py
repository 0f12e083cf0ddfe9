"""One point: what is measured, and the row that it becomes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.measure.estimate import estimate
from hwsim.measure.simulate import simulate
from hwsim.measure.workload import estimate_workload
from hwsim.memory import parse_memory
from hwsim.workloads import workload
from hwsim.workloads.lower import geometries_of
from rtl import AcceleratorConfig
from vq.container import ConfigError, Geometry, account, open_container
from vq.recipe.recipe import Recipe

__all__ = ["MEASURES", "Work", "evaluate", "failure"]

#: Fields of a row that a point which was not measured leaves open, in the order of the document.
MEASURES = (
    "cycles",
    "int8_cycles",
    "speedup",
    "traffic_ratio",
    "bytes_read",
    "int8_bytes_read",
    "bursts",
    "energy_pj",
    "busy_share",
    "macs",
    "multipliers",
    "bytes_per_cycle",
    "rows",
    "bits_per_weight",
    "speedup_with_rest",
)


@dataclass(frozen=True)
class Work:
    """All that the evaluation of a point needs, in plain data that goes to any process.

    Attributes
    ----------
    engine : str
        "model" or "rtl".
    target : str
        Path of a container, or text of a workload if there are ``rules``.
    rules : mapping or None
        The recipe, as :meth:`vq.Recipe.to_json` gives it.
    memory : str
    rows : int or None
    accelerator : mapping of str to int or str
    """

    engine: str
    target: str
    rules: Mapping[str, Any] | None
    memory: str
    rows: int | None
    accelerator: Mapping[str, int | str]


def evaluate(work: Work) -> dict[str, Any]:
    """Measure a point. Nothing that goes wrong with it is raised; the row says so.

    Returns
    -------
    dict
        A row of ``signbook.sweep/1`` without its point: status "refused" if the accelerator or
        the recipe cannot do this combination, "failed" if anything else went wrong.
    """
    start = time.perf_counter()
    try:
        found = _row("done", None, work.engine, _measures(work))
    except ConfigError as error:
        found = _row("refused", str(error), work.engine, {})
    except Exception as error:  # whatever it is, the other points are not to blame
        found = failure(work, error)
    return found | {"seconds": time.perf_counter() - start}


def failure(work: Work, error: BaseException) -> dict[str, Any]:
    """The row of a point whose evaluation ended with an error that is not about its settings."""
    return _row("failed", f"{type(error).__name__}: {error}", work.engine, {}) | {"seconds": None}


def _row(status: str, error: str | None, engine: str, found: Mapping[str, Any]) -> dict[str, Any]:
    measures = {name: found.get(name) for name in MEASURES}
    return {"status": status, "error": error, "engine": engine, **measures}


def _measures(work: Work) -> dict[str, Any]:
    config = AcceleratorConfig.from_mapping(work.accelerator)
    if work.rules is None:
        measure = estimate if work.engine == "model" else simulate
        document = measure(work.target, config=config, memory=work.memory, rows=work.rows)
        geometries = _stored(work.target)
    else:
        network, recipe = workload(work.target), Recipe.from_json(work.rules)
        document = estimate_workload(network, recipe, config=config, memory=work.memory)
        geometries = geometries_of(network.expanded(), recipe, tile_outputs=config.rows)
    ours, int8 = document["runs"]["compressed"], document["runs"]["int8"]
    macs = sum(layer["macs"] for layer in ours["layers"])
    multipliers = config.rows * config.columns
    counts = {layer["m"] for layer in ours["layers"]}
    described = parse_memory(work.memory).describe()
    return {
        "cycles": ours["cycles"],
        "int8_cycles": int8["cycles"],
        "speedup": document["speedup"],
        "traffic_ratio": document["traffic_ratio"],
        "bytes_read": ours["bytes_read"],
        "int8_bytes_read": int8["bytes_read"],
        "bursts": ours["bursts"],
        "energy_pj": ours["energy_pj"],
        "busy_share": macs / (ours["cycles"] * multipliers),
        "macs": macs,
        "multipliers": multipliers,
        "bytes_per_cycle": described.get("peak_bytes_per_cycle", described.get("bytes_per_cycle")),
        "rows": counts.pop() if len(counts) == 1 else None,
        "bits_per_weight": _bits_per_weight(geometries),
        "speedup_with_rest": document.get("speedup_with_rest"),
    }


def _stored(path: str) -> list[Geometry]:
    with open_container(path) as container:
        return [entry.geometry for entry in container.layers]


def _bits_per_weight(geometries: list[Geometry]) -> float:
    """Of compressed layers, all bytes counted."""
    return 8 * sum(a.total_bytes for a in account(geometries)) / sum(g.weights for g in geometries)
