"""``signbook finetune``: cluster, then train codebooks and signs."""

from typing import Annotated, Any

import typer

from signbook.commands.compress import layer_rows
from signbook.commands.defaults import Defaults
from signbook.commands.methods import learning_of
from signbook.commands.options import (
    DEVICE,
    SEED,
    Device,
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
from signbook.commands.printing import (
    print_compressed,
    print_rows,
    print_table,
    save_json,
    text,
    warnings_in_short,
)
from signbook.commands.stopping import resumable
from signbook.commands.torchrun import first_alone
from vq.errors import ConfigError

__all__ = ["run"]

_RATES = Defaults("vq.learning.rates", "Rates")
_TRAINING = Defaults("vq.learning.finetune", "finetune_")
#: Their hidden states are all kept while blocks learn.
_BLOCKWISE_BATCHES = 64


def run(
    model: Model,
    recipe: Recipe,
    data: Annotated[str, typer.Option(help="Training data, named like a model.")],
    out: Out,
    weights: Weights = None,
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the data.")] = _TRAINING.epochs,
    blockwise: Annotated[
        bool,
        typer.Option(
            "--blockwise",
            help="Before (with --epochs 0, instead), fit each block to the original's output.",
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="Learn assignments, too, from the original's blocks: vq4dit, vim-vq or vq4all."
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(min=1, help="Of --method: codewords that compete for every sub-vector."),
    ] = None,
    rate_signs: Annotated[
        float | None,
        typer.Option(help=f"Of signs, in mean weights per step; {_RATES.signs} without --method."),
    ] = None,
    rate_codebooks: Annotated[
        float | None,
        typer.Option(help=f"Of codebooks, likewise; {_RATES.codebooks} without --method."),
    ] = None,
    rate_rest: Annotated[
        float | None,
        typer.Option(help=f"Of norms, biases, kept layers; {_RATES.rest} without --method."),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Learn from the original model's outputs too.")
    ] = False,
    fixed_signs: Annotated[
        bool, typer.Option("--fixed-signs", help="Keep every sign: the control.")
    ] = False,
    amp: Annotated[str | None, typer.Option(help="bf16 computes activations in bfloat16.")] = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Batches per optimiser step.")
    ] = _TRAINING.accumulate,
    importance: Importance = None,
    norms: Norms = True,
    tokenizer: Tokenizer = None,
    seed: Seed = SEED,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars for it to the folder.")
    ] = False,
    device: Device = DEVICE,
    json: Json = None,
) -> dict[str, Any]:
    """Cluster, train codebooks and signs, and write one container; resumable.

    Under torchrun, processes share the rows of every batch.
    """
    import torch

    import vq
    from signbook.data.carried import carry
    from signbook.data.words import words_for
    from signbook.evaluation import choose_device
    from signbook.files import FILE_NAME, output_folder, refuse_inputs, write_json
    from signbook.naming import resolve_data, resolve_model
    from signbook.objectives import Embedded, objective_of
    from vq.distributed import is_main, together
    from vq.learning.checkpoint import clear

    if epochs < 1 and not blockwise:
        raise ConfigError(f"--epochs must be positive without --blockwise, not {epochs}")
    learning = learning_of(
        method,
        candidates,
        {"signs": rate_signs, "codebooks": rate_codebooks, "rest": rate_rest},
        epochs=epochs,
        teacher=teacher,
    )
    outputs = [*(("--out", out / name) for name in (FILE_NAME, "run.json")), ("--json", json)]
    folder = first_alone(output_folder(out, outputs, [model, weights, recipe, data]))
    with folder, resumable(out, "checkpoint"), warnings_in_short():
        torch.manual_seed(seed)
        with together():
            place = choose_device(device)
            rules = vq.Recipe.from_yaml(recipe)
            refuse_inputs(outputs, rules.files)
            objective = objective_of(resolve_data(data))
            if objective.needs_teacher and not teacher and epochs and method in (None, "vq4all"):
                raise ConfigError(f"data {data} hold no targets, so --teacher must be given")
            if epochs:
                objective.require_length()
            network = resolve_model(model, weights).to(place)
            words = words_for(model, tokenizer)
            original = None
            if teacher or blockwise or method is not None:
                original = resolve_model(model, weights).to(place)
                original.load_state_dict(network.state_dict())
        taught, taught_by = network, original if teacher or method is not None else None
        if taught_by is not None and objective.needs_teacher:
            taught, taught_by = Embedded(network), Embedded(taught_by)
        distillation = None if taught_by is None else objective.distillation()
        calibration = objective.calibration()
        with together():
            if epochs:
                objective.try_out(taught, calibration[0], taught_by, distillation)
            result = vq.compress_(
                network,
                rules,
                calibration=calibration,
                importance=importance,
                loss=objective.loss,
                norms=norms,
                seed=seed,
            )
        mine = objective.mine(seed)
        rates = learning.rates(fixed_signs=fixed_signs)
        blocks = None
        if blockwise and original is not None:
            blocks = vq.finetune_blocks_(
                network,
                mine.calibration(_BLOCKWISE_BATCHES),
                original,
                rates=rates,
                fixed_signs=fixed_signs,
                checkpoint_dir=out / "checkpoints" / "blocks",
                resume=resume,
                seed=seed,
            )
        record = vq.FinetuneResult()
        settings: dict[str, Any] = {
            "epochs": epochs,
            "rates": rates,
            "amp": amp,
            "accumulate": accumulate,
            "checkpoint_dir": out / "checkpoints",
            "resume": resume,
            "tensorboard": out / "tensorboard" if tensorboard else None,
            "seed": seed,
        }
        if epochs and method is not None and taught_by is not None:
            record = learning.train(taught, taught_by, mine, **settings)
        elif epochs:
            record = vq.finetune_(
                taught,
                mine.batches,
                loss=objective.loss,
                teacher=taught_by,
                distillation=distillation,
                fixed_signs=fixed_signs,
                **settings,
            )
        if not is_main():
            return {}
        file = vq.save(network, out / FILE_NAME)
        if words is not None:
            file = carry(out / FILE_NAME, words)
        document = {
            "schema": "signbook.finetune/1",
            "file": str(out / FILE_NAME),
            "file_bytes": file.file_bytes,
            "bits_per_weight": result.bits_per_weight,
            **({} if method is None else {"method": method}),
            "layers": layer_rows(result),
            "run": record.to_json(),
        }
        if blocks is not None:
            document["blockwise"] = blocks.to_json()
        write_json(out / "run.json", document)
        clear(out / "checkpoints")
    save_json(json, document)
    print_compressed(document)
    if blocks is not None:
        print_table("block by block", ("name", "before", "after"), blocks.to_json()["blocks"])
    if losses := record.losses:
        print_rows("training", [("loss, first epoch", text(losses[0])), ("last", text(losses[-1]))])
    return document
