"""``signbook plan``: what ``compress`` would do, from shapes alone."""

from dataclasses import asdict
from typing import Any

from signbook.commands.options import SEED, Json, Model, Recipe, Seed, Weights
from signbook.commands.printing import print_table, print_totals, save_json, warnings_in_short

__all__ = ["run"]

_COLUMNS = ("name", "method", "weights", "axis", "d", "k", "bytes", "bits_per_weight")


def run(
    model: Model,
    recipe: Recipe,
    weights: Weights = None,
    seed: Seed = SEED,
    json: Json = None,
) -> dict[str, Any]:
    """Predict a compression: exact bytes, what is skipped and why, about how long and how large."""
    import vq
    from signbook.files import check_outputs
    from signbook.naming import resolve_model

    check_outputs([("--json", json)], [model, weights, recipe])

    with warnings_in_short() as warned:
        planned = vq.plan(resolve_model(model, weights), vq.Recipe.from_yaml(recipe), seed=seed)
    document = _document(planned) | {"warnings": warned}
    save_json(json, document)
    print_table(f"{model} by {recipe}", _COLUMNS, document["layers"])
    print_table("skipped", ("name", "reason"), document["skipped"])
    print_totals(document)
    return document


def _document(planned: Any) -> dict[str, Any]:
    """The ``signbook.plan/1`` document of a :class:`vq.Plan`."""
    return {
        "schema": "signbook.plan/1",
        "layers": [
            {
                "name": a.geometry.name,
                "method": a.geometry.method,
                "weights": a.geometry.weights,
                "axis": a.geometry.axis,
                "d": a.geometry.d,
                "k": a.geometry.k,
                "bytes": a.total_bytes,
                "bits_per_weight": a.bits_per_weight,
            }
            for a in planned.layers
        ],
        "skipped": [asdict(s) for s in planned.skipped],
        "bits_per_weight": planned.bits_per_weight if planned.layers else None,
        "file_bytes": planned.file_bytes,
        "kept_bytes": planned.kept_bytes,
        "seconds": planned.seconds,
        "memory_bytes": planned.memory_bytes,
    }
