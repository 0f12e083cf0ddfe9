"""One point: what is measured, and the row that it becomes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.measure.document import Measurement
from hwsim.measure.estimate import estimate
from hwsim.measure.simulate import simulate
from hwsim.measure.workload import estimate_workload
from hwsim.sweep.document import Measures
from hwsim.workloads import workload
from hwsim.workloads.lower import geometries_of
from rtl import AcceleratorConfig
from vq.container import ConfigError, Geometry, account, open_container
from vq.recipe.recipe import Recipe

__all__ = ["Work", "evaluate", "failure"]


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
        found = _row("refused", str(error), work.engine, Measures())
    except Exception as error:  # whatever it is, the other points are not to blame
        found = failure(work, error)
    return found | {"seconds": time.perf_counter() - start}


def failure(work: Work, error: BaseException) -> dict[str, Any]:
    """The row of a point whose evaluation ended with an error that is not about its settings."""
    return _row("failed", f"{type(error).__name__}: {error}", work.engine, Measures()) | {
        "seconds": None
    }


def _row(status: str, error: str | None, engine: str, found: Measures) -> dict[str, Any]:
    return {"status": status, "error": error, "engine": engine, **found.model_dump()}


def _measures(work: Work) -> Measures:
    config = AcceleratorConfig.from_mapping(work.accelerator)
    if work.rules is None:
        measure = estimate if work.engine == "model" else simulate
        document = measure(work.target, config=config, memory=work.memory, rows=work.rows)
        geometries = _stored(work.target)
    else:
        network, recipe = workload(work.target), Recipe.from_json(work.rules)
        document = estimate_workload(network, recipe, config=config, memory=work.memory)
        geometries = geometries_of(network.expanded(), recipe, tile_outputs=config.rows)
    found = Measurement.model_validate(document)
    ours, int8 = found.runs["compressed"], found.runs["int8"]
    counts = {layer.m for layer in ours.layers}
    return Measures(
        cycles=ours.cycles,
        int8_cycles=int8.cycles,
        speedup=found.speedup,
        traffic_ratio=found.traffic_ratio,
        bytes_read=ours.bytes_read,
        int8_bytes_read=int8.bytes_read,
        bursts=ours.bursts,
        energy_pj=ours.energy_pj,
        busy_share=ours.macs / (ours.cycles * found.multipliers),
        macs=ours.macs,
        multipliers=found.multipliers,
        bytes_per_cycle=found.memory.bytes_per_cycle,
        rows=counts.pop() if len(counts) == 1 else None,
        bits_per_weight=_bits_per_weight(geometries),
        speedup_with_rest=found.speedup_with_rest,
    )


def _stored(path: str) -> list[Geometry]:
    with open_container(path) as container:
        return [entry.geometry for entry in container.layers]


def _bits_per_weight(geometries: list[Geometry]) -> float:
    """Of compressed layers, all bytes counted."""
    return 8 * sum(a.total_bytes for a in account(geometries)) / sum(g.weights for g in geometries)
