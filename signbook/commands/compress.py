"""``signbook compress``: cluster what a recipe selects, without training."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.options import (
    SEED,
    Importance,
    Json,
    Model,
    Norms,
    Out,
    Recipe,
    Seed,
    Tokenizer,
    Weights,
)
from signbook.commands.printing import print_compressed, save_json, warnings_in_short

if TYPE_CHECKING:
    from vq import CompressResult

__all__ = ["layer_rows", "run"]


def run(
    model: Model,
    recipe: Recipe,
    out: Out,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help="Calibration data, named like a model.")] = None,
    importance: Importance = None,
    norms: Norms = True,
    tokenizer: Tokenizer = None,
    seed: Seed = SEED,
    json: Json = None,
) -> dict[str, Any]:
    """Cluster the layers that a recipe selects and write one container, without training."""
    import torch
    from torch import nn

    import vq
    from signbook.data.carried import carry
    from signbook.data.words import words_for
    from signbook.files import FILE_NAME, output_folder, refuse_inputs
    from signbook.naming import resolve_data, resolve_model
    from signbook.objectives import objective_of

    outputs = [("--out", out / FILE_NAME), ("--json", json)]
    with output_folder(out, outputs, [model, weights, recipe, data]), warnings_in_short() as warned:
        rules = vq.Recipe.from_yaml(recipe)
        refuse_inputs(outputs, rules.files)
        torch.manual_seed(seed)
        network = resolve_model(model, weights)
        words = words_for(model, tokenizer)
        objective = None if data is None else objective_of(resolve_data(data))
        result = vq.compress_(
            network,
            rules,
            calibration=None if objective is None else objective.calibration(),
            importance=importance,
            loss=nn.functional.cross_entropy if objective is None else objective.loss,
            norms=norms,
            seed=seed,
        )
        file = vq.save(network, out / FILE_NAME)
        if words is not None:
            file = carry(out / FILE_NAME, words)
    document = {
        "schema": "signbook.compress/1",
        "file": str(out / FILE_NAME),
        "file_bytes": file.file_bytes,
        "bits_per_weight": result.bits_per_weight,
        "layers": layer_rows(result),
        "kept": result.kept,
        "warnings": warned,
    }
    save_json(json, document)
    print_compressed(document)
    return document


def layer_rows(result: "CompressResult") -> list[dict[str, Any]]:
    """What a document says about each layer that was clustered."""
    from vq.container import account

    accounts = account([layer.geometry for layer in result.layers])
    return [
        {
            "name": layer.geometry.name,
            "method": layer.geometry.method,
            "weights": layer.geometry.weights,
            "bits_per_weight": counted.bits_per_weight,
            "relative_error": layer.relative_error,
        }
        for layer, counted in zip(result.layers, accounts, strict=True)
    ]
