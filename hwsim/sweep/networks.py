"""Workloads by the cycle model, and recipes by their text."""

from collections.abc import Sequence
from typing import Any

from hwsim.cycles import predict
from hwsim.measure import BASELINES, run_document
from hwsim.memory import parse_memory
from hwsim.program import assemble
from hwsim.workloads import Workload, plan_workload
from hwsim.workloads.lower import geometries_of
from rtl import AcceleratorConfig
from vq.container import account
from vq.recipe import Int8, Recipe

__all__ = ["bits_per_weight", "estimate_workload", "recipe_of"]


def recipe_of(text: str) -> Recipe:
    """A recipe by its text: a YAML file, or one method for all layers, ``ssvq:d=8,k=16``.

    Raises
    ------
    RecipeError
        If it is none, with every problem.

    Examples
    --------
    >>> recipe_of("vq:d=4,k=256")
    Recipe({'*': VQ(d=4, k=256, axis='auto', scale='layer', tile_outputs=16, shared=None)})
    """
    if text.endswith((".yaml", ".yml")):
        return Recipe.from_yaml(text)
    name, _, settings = text.partition(":")
    pairs = (setting.partition("=") for setting in filter(None, settings.split(",")))
    return Recipe.from_json({"*": {key: value for key, _, value in pairs} | {"method": name}})


def estimate_workload(
    workload: Workload,
    recipe: Recipe,
    *,
    config: AcceleratorConfig,
    memory: str,
    methods: Sequence[str] = BASELINES,
) -> dict[str, Any]:
    """Predict what a workload costs under a recipe, beside the same layers as int8.

    Returns
    -------
    dict
        The document ``signbook.simulate/1`` with engine "model".

    Raises
    ------
    ConfigError
        If the recipe does not fit, or the instance cannot run a layer.
    """
    compressed = geometries_of(workload.expanded(), recipe)
    recipes = {"compressed": recipe}
    if "int8" in methods:
        recipes["int8"] = Recipe({geometry.name: Int8() for geometry in compressed})
    runs = {}
    for name, one in recipes.items():
        planned = plan_workload(workload, one, config)
        program = assemble(planned.steps, planned.file, config)
        counts = predict(config, program, parse_memory(memory))
        runs[name] = run_document(program, counts, config, exact=None)
    ours, int8 = runs["compressed"], runs.get("int8")
    return {
        "schema": "signbook.simulate/1",
        "engine": "model",
        "accelerator": config.to_mapping(),
        "memory": parse_memory(memory).describe(),
        "runs": runs,
        "speedup": int8["cycles"] / ours["cycles"] if int8 else None,
        "traffic_ratio": int8["bytes_read"] / ours["bytes_read"] if int8 else None,
    }


def bits_per_weight(workload: Workload, recipe: Recipe, config: AcceleratorConfig) -> float:
    """Of the layers that a recipe compresses, all bytes counted, for an instance's files."""
    geometries = geometries_of(workload.expanded(), recipe, tile_outputs=config.rows)
    return 8 * sum(a.total_bytes for a in account(geometries)) / sum(g.weights for g in geometries)
