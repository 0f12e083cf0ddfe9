"""Measure a workload by the cycle model: networks that nobody has compressed, or even trained."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hwsim.cycles import predict
from hwsim.defaults import DEFAULT_MEMORY
from hwsim.measure.baselines import require_baselines
from hwsim.measure.counts import run_of
from hwsim.measure.document import Measurement, Network, Rest, Run
from hwsim.measure.file import Progress
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
            parts.append((times, run_of(program, counts, config, exact=None)))
            before += counts.beats_read
        runs[name] = _renamed(Run.total(parts), templates)
    rest = rest_of(workload, ours.left_out, config, once=once)
    network = Network(
        name=workload.name,
        trained=workload.trained,
        layers=sum(layer.count for layer in workload.layers),
        parameters=workload.parameters,
    )
    return Measurement.of(
        "model",
        config.to_mapping(),
        described,
        runs,
        workload=network,
        rest=Rest.model_validate(rest) if rest else None,
    ).to_json()


def _prepare(plan: PlannedWorkload, config: AcceleratorConfig) -> list[tuple[int, Program]]:
    """Programs and how often each is run: one, or one for each stretch of equal counts."""
    stretches = itertools.groupby(plan.steps, key=plan.counts.__getitem__)
    return [(times, assemble(list(steps), plan.file, config)) for times, steps in stretches]


def _told(
    progress: Progress | None, name: str, before: int, beats: int
) -> Callable[[int], None] | None:
    return progress and (lambda done: progress(name, before + done, beats))


def _renamed(run: Run, templates: Mapping[str, str]) -> Run:
    """Layers of a block that is there once have the number of none of its repetitions."""
    layers = [
        layer.model_copy(update={"name": templates.get(layer.name, layer.name)})
        for layer in run.layers
    ]
    return run.model_copy(update={"layers": layers})
