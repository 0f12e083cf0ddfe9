"""Measure a workload by the cycle model: networks that nobody has compressed, or even trained."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from hwsim.cycles.predict import predict
from hwsim.measure.baselines import require_baselines
from hwsim.measure.counts import run_document
from hwsim.measure.simulate import DEFAULT_MEMORY, Progress, document_of
from hwsim.memory import parse_memory
from hwsim.program import Program, assemble
from hwsim.workloads import (
    PlannedWorkload,
    Workload,
    baseline_recipe,
    plan_workload,
    recipe_of,
    rest_of,
)
from rtl import AcceleratorConfig
from vq.container import ConfigError

__all__ = ["estimate_workload"]

_SUMS = ("cycles", "bytes_read", "bytes_written", "bursts", "busy_cycles")
_SUMS_BY = ("stall_cycles", "bytes_by", "energy_by")
_SUMS_OF_LAYER = ("weights", "macs", "cycles", "bytes_read", "busy_cycles")


def estimate_workload(
    workload: Workload,
    recipe: Any,
    *,
    config: AcceleratorConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    methods: Sequence[str] = ("int8",),
    once: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict what a workload costs under a recipe, and what the same layers cost as baselines.

    Layers that the recipe keeps are kept in every run. What the accelerator does not run is counted
    as ``rest``, the same for all runs (:func:`hwsim.workloads.rest_of`).

    Parameters
    ----------
    workload : Workload
    recipe : Recipe or str
        A text is read by :func:`hwsim.workloads.recipe_of`.
    config, memory, progress
        See :func:`hwsim.simulate`.
    methods : sequence of str
        Baselines, of :data:`hwsim.measure.baselines.BASELINES`.
    once : bool
        Lay out a block that repeats a single time, alone, and multiply: faster, but each repetition
        then starts on an empty accelerator, and drains it. Its layers keep ``{}`` in their names.

    Returns
    -------
    dict
        The document of :func:`hwsim.estimate`, and "workload" (name, trained, layers, parameters),
        "rest", and "speedup_with_rest": the speed-up if the rest comes on top of both runs.

    Raises
    ------
    ConfigError
        If the recipe does not fit the workload or keeps all of it, the instance cannot run a
        layer, or a baseline or the memory is unknown.
    SimulationError
        If there is no C compiler.
    """
    config = config or AcceleratorConfig()
    recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
    described = parse_memory(memory).describe()
    require_baselines(methods)
    recipes = {"compressed": recipe} | {name: baseline_recipe(recipe, name) for name in methods}
    plans = {name: plan_workload(workload, one, config, once=once) for name, one in recipes.items()}
    ours = plans["compressed"]
    if not any(step.entry for step in ours.steps):
        raise ConfigError(
            f"recipe for {workload.name!r} must compress a layer that the accelerator runs, "
            "not none"
        )
    templates = {layer.repetition(0).name: layer.name for layer in workload.layers if once}
    ready = {name: _prepare(plan, config) for name, plan in plans.items()}
    runs = {}
    for name, programs in ready.items():
        beats = sum(layer.read_bytes for _, p in programs for layer in p.layers) // config.bus_bytes
        before = 0
        parts = []
        for times, program in programs:
            told = _told(progress, name, before, beats)
            counts = predict(config, program, parse_memory(memory), progress=told)
            parts.append((times, run_document(program, counts, config, exact=None)))
            before += counts.beats_read
        runs[name] = _added(parts, templates)
    rest = rest_of(workload, ours.left_out, config, once=once)
    on_top = rest["cycles"] if rest else 0
    document = document_of("model", config, described, runs)
    whole = {name: run["cycles"] + on_top for name, run in runs.items()}
    return document | {
        "workload": {
            "name": workload.name,
            "trained": workload.trained,
            "layers": sum(layer.count for layer in workload.layers),
            "parameters": workload.parameters,
        },
        "rest": rest,
        "speedup_with_rest": whole["int8"] / whole["compressed"] if "int8" in whole else None,
    }


def _prepare(plan: PlannedWorkload, config: AcceleratorConfig) -> list[tuple[int, Program]]:
    """Programs and how often each is run: one, or one for each stretch of equal counts."""
    stretches = itertools.groupby(plan.steps, key=plan.counts.__getitem__)
    return [(times, assemble(list(steps), plan.file, config)) for times, steps in stretches]


def _told(
    progress: Progress | None, name: str, before: int, beats: int
) -> Callable[[int], None] | None:
    return progress and (lambda done: progress(name, before + done, beats))


def _added(parts: list[tuple[int, dict[str, Any]]], templates: dict[str, str]) -> dict[str, Any]:
    """One RUN of several, each so many times."""
    run = dict(parts[0][1])
    run |= {key: sum(times * part[key] for times, part in parts) for key in _SUMS}
    for key in _SUMS_BY:
        if run[key] is not None:
            run[key] = {by: sum(times * part[key][by] for times, part in parts) for by in run[key]}
    if run["energy_by"] is not None:
        run["energy_pj"] = sum(times * part["energy_pj"] for times, part in parts)
    run["wall_seconds"] = sum(part["wall_seconds"] for _, part in parts)
    run["layers"] = [
        row
        | {"name": templates.get(row["name"], row["name"])}
        | {key: times * row[key] for key in _SUMS_OF_LAYER}
        | {"stall_cycles": {cause: times * n for cause, n in row["stall_cycles"].items()}}
        for times, part in parts
        for row in part["layers"]
    ]
    return run
