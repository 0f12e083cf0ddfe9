"""``signbook quantize``: a few bits by what compensates or learns, on data, block by block."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.compensated import compensated_of
from signbook.commands.defaults import Defaults
from signbook.commands.diffused import STEPS, diffused_of
from signbook.commands.job import Door, Job
from signbook.commands.layout import Layout
from signbook.commands.learned import learned_of
from signbook.commands.options import (
    DEVICE,
    SEED,
    Device,
    Json,
    Model,
    Norms,
    Out,
    Seed,
    Tokenizer,
    Weights,
)
from signbook.commands.printing import print_rows, save_json, text, warnings_in_short
from signbook.commands.stopping import resumable
from signbook.commands.torchrun import first_alone
from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["run"]

_RECIPE = Defaults("rescomp.calibrate", "default_recipe")
_SOLVER = Defaults("rescomp.settings", "Settings")
_TUNING = Defaults("rescomp.tuning", "Tuning")
_DISTILLING = Defaults("vq.learning.distil", "distil_")
_FITTING = Defaults("rescomp.codebooks.settings", "Fitting")
_LEARNING = Defaults("vq.perturbation.door", "learn_scalars_")
_SDE = Defaults("vq.methods.sde", "sde_")
_ROUNDS = Defaults("vq.methods.w4a8_diffusion", "Learning")


def run(
    model: Model,
    out: Out,
    data: Annotated[
        str | None,
        typer.Option(
            help="Calibration data: py:package.module:factory. rtn and w4a8-diffusion do without."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="rtn, gptq, gptaq, gptq-r, gptaq-r, qep (exa) or foem; all but rtn also with "
            "-ssvq or -vq behind them, for codebooks. Or lwc, omniquant, duquant, prefixquant, lsi "
            "or sde, which learn; w4a8-diffusion learns from a diffusion network's own sampling."
        ),
    ] = "gptq",
    bits: Annotated[
        int | None,
        typer.Option(
            help="2, 3, 4 (default) or 8, of linears and convolutions; codebooks 2 (default) or 3."
        ),
    ] = None,
    group: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Weights that share a scale; {_RECIPE.group} by default, all of an output with "
            "w4a8-diffusion.",
        ),
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Store a zero for every group, too.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="In place of bits, group and asymmetric.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Of the asymmetry: gptaq, gptaq-r.")] = None,
    alpha2: Annotated[float | None, typer.Option(help="Of the drift: gptq-r, gptaq-r.")] = None,
    beta: Annotated[float | None, typer.Option(help="Of qep and foem.")] = None,
    mode: Annotated[str | None, typer.Option(help="allw or org: gptq-r, gptaq-r.")] = None,
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Search for narrower ranges.")
    ] = False,
    activation_order: Annotated[
        bool,
        typer.Option(
            "--activation-order/--no-activation-order", help="Round inputs of high energy first."
        ),
    ] = _SOLVER.activation_order,
    dynamic_groups: Annotated[
        bool,
        typer.Option(
            "--dynamic-groups",
            help="Take a group's scale when its turn comes; needs --no-activation-order.",
        ),
    ] = _SOLVER.dynamic_groups,
    damping: Annotated[
        float, typer.Option(help="In units of the mean diagonal.")
    ] = _SOLVER.damping,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Report errors; without, rtn, gptq, gptq-r and foem run one model, not two.",
        ),
    ] = _SOLVER.measure,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Rotate a model built like Llama first.")
    ] = False,
    activation_bits: Annotated[
        int | None,
        typer.Option(
            help="Round the layers' inputs while calibrating, 2 to 8 bits; with duquant, "
            "prefixquant and w4a8-diffusion (8 by default), whenever the file's model runs."
        ),
    ] = None,
    sweeps: Annotated[
        int,
        typer.Option(min=0, help="Of codebooks: refits by the outputs, all words chosen again."),
    ] = _FITTING.sweeps,
    restarts: Annotated[
        int, typer.Option(min=1, help="Of codebooks: starts of clustering; the best is kept.")
    ] = _FITTING.restarts,
    em: Annotated[
        int, typer.Option(min=0, help="Of codebooks: rounds of EM in the exact metric.")
    ] = _FITTING.em,
    again: Annotated[
        int, typer.Option(min=0, help="Of codebooks: further starts, from compensated weights.")
    ] = _FITTING.again,
    importance: Annotated[
        str | None,
        typer.Option(help="Of codebooks: weigh errors of outputs by 'gradients' of the data."),
    ] = None,
    norms: Norms = True,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="PARTS",
            help="blocks: train each against the original's, once solved; scales: in the end, "
            "train scales and norms by the original's outputs; or blocks,scales.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of --tune; by default {_TUNING.epochs} for blocks, {_DISTILLING.epochs} for "
            f"scales. Of methods that learn, {_LEARNING.epochs}.",
        ),
    ] = None,
    look_ahead: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of --tune blocks: measure the loss so many blocks later. Of methods that learn: "
            "add the losses of so many blocks behind.",
        ),
    ] = _TUNING.look_ahead,
    width: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Of sde: half the band around the singular values; {_SDE.width} by default.",
        ),
    ] = None,
    corner: Annotated[
        int | None,
        typer.Option(min=0, help="Of lsi and sde: leading singular directions that all mix."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Of lsi and sde, what they add to: lwc (default), omniquant, duquant, prefixquant."
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1, max=2, help="Of methods that learn: 2 trains a block with the one behind it."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of w4a8-diffusion: of the sampler, which the file is for; {STEPS} by default.",
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Of w4a8-diffusion: ddim, dpm++, euler, or its own.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Of w4a8-diffusion: of sampling with classes.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of w4a8-diffusion: of a table of scales; by default one for each step.",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Of w4a8-diffusion: pools to learn from; {_ROUNDS.rounds} by default.",
        ),
    ] = None,
    weights: Weights = None,
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 16,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep hidden states on the CPU between blocks.")
    ] = False,
    tokenizer: Tokenizer = None,
    seed: Seed = SEED,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take finished blocks from the folder.")
    ] = False,
    device: Device = DEVICE,
    json: Json = None,
) -> dict[str, Any]:
    """Quantise to a few bits on calibration data, block by block, and write one container.

    Under torchrun, processes share the batches.
    """
    import torch

    import rescomp
    import vq
    from signbook.data.carried import carry
    from signbook.data.words import words_for
    from signbook.evaluation import choose_device
    from signbook.files import FILE_NAME, output_folder, write_json
    from signbook.naming import resolve_data, resolve_model
    from signbook.objectives import calibration_of, part_of
    from vq.distributed import is_main, together
    from vq.learning.checkpoint import clear
    from vq.recipe.selection import select

    start = time.perf_counter()
    settings = rescomp.Settings(
        damping,
        activation_order,
        dynamic_groups,
        clip=rescomp.Clip() if clip else None,
        measure=measure,
    )
    fitting = rescomp.Fitting(em=em, restarts=restarts, again=again, sweeps=sweeps)
    shares = {"alpha": alpha, "alpha2": alpha2, "beta": beta, "mode": mode}
    learned = {"width": width, "corner": corner, "base": base, "window": window}
    foreign = (
        {f"--{name}": value for name, value in shares.items()}
        | {"--clip": clip, "--dynamic-groups": dynamic_groups, "--importance": importance}
        | {"--tune": tune, "--no-measure": not measure}
        | {"--damping": damping != _SOLVER.damping, "--no-activation-order": not activation_order}
        | {"--sweeps, --restarts, --em and --again": fitting != rescomp.Fitting()}
    )
    diffused = diffused_of(
        method,
        {
            "steps": steps, "sampler": sampler, "guidance": guidance, "rounds": rounds,
            "rows": rows,
        },
        foreign
        | {f"--{name}": value is not None for name, value in learned.items()}
        | {"--data": data, "--epochs": epochs, "--look-ahead": look_ahead, "--offload": offload}
        | {"--rotate": rotate, "--no-norms": not norms},
    )  # fmt: skip
    door: Door = (
        diffused
        or learned_of(method, learned, epochs, look_ahead, foreign)
        or compensated_of(
            method, shares, settings, fitting, importance=importance, norms=norms, tune=tune,
            epochs=epochs, look_ahead=look_ahead, data=data is not None,
        )
    )  # fmt: skip
    if data is None and door.needs_data:
        raise ConfigError(f"--data must be given for {method}, not left out; only rtn needs none")
    layout = Layout(bits, group, asymmetric, recipe, door.codebooks, door.per_output)
    if batches < 1:
        raise ConfigError(f"--batches must be positive, not {batches}")
    outputs = [("--out", out / name) for name in (FILE_NAME, "quantize.json")]
    named = [model, weights, recipe, data]
    folder = first_alone(output_folder(out, [*outputs, ("--json", json)], named))
    with folder, resumable(out, door.part), warnings_in_short():
        torch.manual_seed(seed)
        with together():
            network = resolve_model(model, weights).to(choose_device(device))
            words = words_for(model, tokenizer)
            if rotate:
                _rotate(network, seed)
            rules = layout.recipe_for(network)
            selected = select(network, rules).layers
            layout.check(selected, method)
            door.check(selected)
            task = None if data is None else resolve_data(data)
            calibration = None if task is None else calibration_of(task, batches)
        if task is not None and calibration is not None:
            calibration = part_of(calibration, task)
        running = {
            "checkpoint_dir": out / "checkpoints", "resume": resume, "offload": offload,
            "seed": seed,
        }  # fmt: skip
        job = Job(network, rules, selected, task, calibration, batches, activation_bits, running)
        done = door.quantize(job)
        if not is_main():
            return {}
        file = vq.save(network, out / FILE_NAME)
        if words is not None:
            file = carry(out / FILE_NAME, words)
        document = {
            "schema": "signbook.quantize/1",
            "file": str(out / FILE_NAME),
            "file_bytes": file.file_bytes,
            "bits_per_weight": done.result.bits_per_weight,
            "method": method,
            **done.facts({"rotated": rotate, "activation_bits": activation_bits}),
            "seconds": time.perf_counter() - start,
        }
        write_json(out / "quantize.json", document)
        clear(out / "checkpoints")
    save_json(json, document)
    others = door.show(document)
    totals = ("file", "file_bytes", "bits_per_weight", "seconds")
    print_rows("total", [*((key, text(document[key])) for key in totals), *others])
    return document


def _rotate(network: "nn.Module", seed: int) -> None:
    """Rotate a model that another of the same name can be filled with afterwards."""
    from torch import nn

    import rescomp

    embeddings = [m.weight for m in network.modules() if isinstance(m, nn.Embedding)]
    head = getattr(network, "lm_head", None)
    if head is not None and any(head.weight is weight for weight in embeddings):
        raise ConfigError(
            "--rotate must be given a model whose output layer is not tied to its embedding: the "
            "rotated file would not fit it; use rescomp.rotate_ and vq.hf.save_pretrained"
        )
    rescomp.rotate_(network, seed=seed)
