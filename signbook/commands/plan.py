"""``signbook plan``: what ``compress`` would do, from shapes alone."""

import os
import time
from pathlib import Path
from typing import Any

from signbook.commands.options import SEED, Json, Model, Recipe, Seed, Tokenizer, Weights
from signbook.commands.printing import print_table, print_totals, save_json, warnings_in_short

__all__ = ["run"]

_COLUMNS = ("name", "method", "weights", "axis", "d", "k", "bytes", "bits_per_weight")


def run(
    model: Model,
    recipe: Recipe,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    seed: Seed = SEED,
    json: Json = None,
) -> dict[str, Any]:
    """Predict a compression: exact bytes, what is skipped and why, about how long and how large."""
    import vq
    from signbook.data.carried import stored
    from signbook.data.words import words_for
    from signbook.files import check_outputs, refuse_inputs
    from signbook.naming import resolve_model

    check_outputs([("--json", json)], [model, weights, recipe])

    with warnings_in_short() as warned:
        network, rules = resolve_model(model, weights), vq.Recipe.from_yaml(recipe)
        refuse_inputs([("--json", json)], rules.files)
        words = words_for(model, tokenizer)
        carried = 0 if words is None else len(stored(words))
        predict, begun = vq.plan, _age()  # compress will start as this command did
        planned = predict(network, rules, seed=seed, tokenizer_bytes=carried)
    document = _document(planned, begun) | {"warnings": warned}
    save_json(json, document)
    print_table(f"{model} by {recipe}", _COLUMNS, document["layers"])
    kept = [{"name": s.name, "reason": s.reason} for s in planned.skipped if s.candidate]
    print_table("skipped", ("name", "reason"), kept + _summed(planned))
    print_totals(document)
    return document


def _age() -> float:
    """Seconds since this process began; its processor time where the system does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not Linux
        return time.process_time()
    ticks = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks


def _summed(planned: Any) -> list[dict[str, str]]:
    """What no recipe can name, a row for each type of module."""
    kinds: dict[str, list[int]] = {}
    for skipped in planned.skipped:
        if not skipped.candidate:
            kinds.setdefault(skipped.kind, []).append(skipped.weights)
    return [
        {
            "name": f"{len(weights):,} x {kind}",
            "reason": f"no weight matrix; {sum(weights):,} weights in all",
        }
        for kind, weights in kinds.items()
    ]


def _document(planned: Any, begun: float) -> dict[str, Any]:
    """The ``signbook.plan/1`` document of a :class:`vq.Plan`, ``begun`` seconds after the start."""
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
        "skipped": [{"name": s.name, "reason": s.reason} for s in planned.skipped],
        "bits_per_weight": planned.bits_per_weight if planned.layers else None,
        "file_bytes": planned.file_bytes,
        "kept_bytes": planned.kept_bytes,
        "seconds": planned.seconds,
        "memory_bytes": planned.memory_bytes,
        "process_seconds": begun + planned.seconds,
        "process_peak_bytes": planned.process_peak_bytes,
    }
