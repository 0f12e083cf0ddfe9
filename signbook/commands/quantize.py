"""``signbook quantize``: a few bits by what compensates or learns, on data, block by block."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.learned import METHODS, learned_of, print_learned
from signbook.commands.options import DEVICE, SEED, Device, Json, Model, Norms, Out, Seed, Weights
from signbook.commands.printing import (
    print_rows,
    print_table,
    save_json,
    text,
    warnings_in_short,
)
from signbook.commands.stopping import resumable
from signbook.commands.torchrun import first_alone
from signbook.commands.tuning import tuning_of
from vq.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    import rescomp
    import vq
    from rescomp.methods import Method
    from vq.perturbation.door import LearnedResult

__all__ = ["method_named", "run"]

_BITS = 4
_RECIPE = Defaults("rescomp.calibrate", "default_recipe")
_SOLVER = Defaults("rescomp.settings", "Settings")
_TUNING = Defaults("rescomp.tuning", "Tuning")
_DISTILLING = Defaults("vq.learning.distil", "distil_")
_FITTING = Defaults("rescomp.codebooks.settings", "Fitting")
_LEARNING = Defaults("vq.perturbation.door", "learn_scalars_")
_SDE = Defaults("vq.methods.sde", "sde_")
#: Codebooks of about so many bits. A sign of every sub-vector pays for twice the codewords.
_CODEBOOKS: dict[str, dict[int, dict[str, Any]]] = {
    "ssvq": {2: {"d": 8, "k": 512, "parity": True}, 3: {"d": 4, "k": 256}},
    "vq": {2: {"d": 4, "k": 256}, 3: {"d": 2, "k": 64}},
}


def run(
    model: Model,
    out: Out,
    data: Annotated[
        str | None,
        typer.Option(help="Calibration data: py:package.module:factory. rtn does without."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="rtn, gptq, gptaq, gptq-r, gptaq-r, qep (exa) or foem; all but rtn also with "
            "-ssvq or -vq behind them, for codebooks. Or lwc, lsi or sde, which learn."
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
        typer.Option(min=1, help=f"Weights that share a scale; {_RECIPE.group} by default."),
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
        int | None, typer.Option(help="Round the layers' inputs while calibrating, 2 to 8 bits.")
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
            f"scales. Of lwc, lsi and sde, {_LEARNING.epochs}.",
        ),
    ] = None,
    look_ahead: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of --tune blocks: measure the loss so many blocks later. Of lwc, lsi and sde: "
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
    weights: Weights = None,
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 16,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep hidden states on the CPU between blocks.")
    ] = False,
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
    from signbook.evaluation import choose_device
    from signbook.files import FILE_NAME, output_folder, write_json
    from signbook.naming import resolve_data, resolve_model
    from signbook.objectives import calibration_of, objective_of, part_of
    from vq.calibration.importance import output_gradients
    from vq.distributed import is_main, together
    from vq.learning.checkpoint import clear
    from vq.progress import bar
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
    if importance not in (None, "gradients"):
        raise ConfigError(
            f"--importance must be 'gradients', not {importance!r}; inputs weigh errors anyway"
        )
    shares = {"alpha": alpha, "alpha2": alpha2, "beta": beta, "mode": mode}
    learned = learned_of(
        method,
        {"width": width, "corner": corner},
        epochs,
        look_ahead,
        {f"--{name}": value for name, value in shares.items()}
        | {"--clip": clip, "--dynamic-groups": dynamic_groups, "--importance": importance}
        | {"--activation-bits": activation_bits, "--tune": tune}
        | {"--damping": damping != _SOLVER.damping, "--no-measure": not measure}
        | {"--no-activation-order": not activation_order},
    )
    solver, kind = _split(method)
    chosen = method_named(solver if learned is None else "rtn", **shares)
    needs_data = learned is not None or chosen.correction() is not None
    if data is None and needs_data:
        raise ConfigError(f"--data must be given for {method}, not left out; only rtn needs none")
    layout = _Layout(bits, group, asymmetric, recipe, kind)
    tuned = tuning_of(
        tune,
        epochs if learned is None else None,
        look_ahead if learned is None else 0,
        data=data is not None,
        compensates=chosen.correction() is not None,
    )
    if batches < 1:
        raise ConfigError(f"--batches must be positive, not {batches}")
    outputs = [("--out", out / name) for name in (FILE_NAME, "quantize.json")]
    named = [model, weights, recipe, data]
    folder = first_alone(output_folder(out, [*outputs, ("--json", json)], named))
    with folder, resumable(out, "block"), warnings_in_short():
        torch.manual_seed(seed)
        with together():
            place = choose_device(device)
            network = resolve_model(model, weights).to(place)
            if rotate:
                _rotate(network, seed)
            original = copy.deepcopy(network) if tuned.scales else None
            rules = layout.recipe_for(network)
            selected = select(network, rules).layers
            if kind is not None and kind not in {layer.format.name for layer in selected}:
                raise ConfigError(
                    f"{recipe}: a layer must be {kind} with --method {method}, not none"
                )
            if not any(layer.geometry.k for layer in selected) and (
                importance is not None or fitting != rescomp.Fitting()
            ):
                raise ConfigError(
                    "--sweeps, --restarts, --em, --again and --importance must come with layers in "
                    "ssvq or vq, not without; put -ssvq or -vq behind --method, or give a --recipe"
                )
            layers = [layer.name for layer in selected]
            task = None if data is None else resolve_data(data)
            calibration = None if task is None else calibration_of(task, batches)
        weighed = None
        if importance is not None and task is not None:
            objective = objective_of(task)
            labelled = objective.calibration(batches)
            with together(), bar("reading gradients", None):
                weighed = output_gradients(network, labelled, loss=objective.loss)
        with together():
            rounded = _rounded(network, layers, activation_bits)
        if task is not None and calibration is not None:
            calibration = part_of(calibration, task)
        result: rescomp.QuantizeResult | LearnedResult
        facts: dict[str, Any]
        running: dict[str, Any] = {
            "checkpoint_dir": out / "checkpoints", "resume": resume, "offload": offload,
            "seed": seed,
        }  # fmt: skip
        with _of_use(out / "checkpoints"):
            if learned is not None:
                result = learned.quantize(network, calibration or [], rules, **running)
                facts = {
                    "settings": {"method": repr(learned), "rotated": rotate},
                    "layers": learned.layers(result),
                }
            else:
                with bar("quantising", len(layers)) as advance:
                    result = rescomp.quantize_(
                        network,
                        calibration,
                        rules,
                        chosen,
                        settings=settings,
                        fitting=fitting,
                        importance=weighed,
                        activations=rounded,
                        norms=norms,
                        tuning=tuned.blocks(),
                        progress=lambda done, total, name: advance(note=name),
                        **running,
                    )
                facts = {
                    "settings": {
                        "method": repr(chosen),
                        "solver": repr(settings),
                        **(
                            {"codebooks": repr(fitting), "importance": importance}
                            if _has_codebooks(result)
                            else {}
                        ),
                        **({} if tune is None else {"tuning": repr(tuned)}),
                        **({} if norms else {"norms": False}),
                        "rotated": rotate,
                        "activation_bits": activation_bits,
                    },
                    "layers": _layers(result, {chosen.name: solver}),
                }
        distilled = None
        if original is not None and task is not None:
            distilled = tuned.distil(
                network,
                original,
                calibration or [],
                task,
                checkpoint_dir=out / "checkpoints" / "scales",
                resume=resume,
                seed=seed,
            )
        if not is_main():
            return {}
        file = vq.save(network, out / FILE_NAME)
        document = {
            "schema": "signbook.quantize/1",
            "file": str(out / FILE_NAME),
            "file_bytes": file.file_bytes,
            "bits_per_weight": result.bits_per_weight,
            "method": method,
            **facts,
            "kept": result.kept,
            **({"blocks": [asdict(one) for one in result.blocks]} if result.blocks else {}),
            **({} if distilled is None else {"distilled": distilled}),
            "seconds": time.perf_counter() - start,
        }
        write_json(out / "quantize.json", document)
        clear(out / "checkpoints")
    save_json(json, document)
    _print(document, damping)
    return document


def _has_codebooks(result: "rescomp.QuantizeResult") -> bool:
    return any(layer.geometry.k for layer in result.layers)


@contextmanager
def _of_use(checkpoints: Path) -> Iterator[None]:
    """Remove the checkpoints of a run that its data or settings end: they belong to no other."""
    from vq.calibration.memory import is_out_of_memory
    from vq.learning.checkpoint import clear

    new = not any(checkpoints.rglob("step-*"))
    try:
        yield
    except ConfigError as error:
        cause = error.__cause__
        if new and (cause is None or not is_out_of_memory(cause)):
            clear(checkpoints)
        raise


@dataclass(frozen=True)
class _Layout:
    """How layers are to be stored: bits and groups of all of them alike, or a recipe."""

    bits: int | None
    group: int | None
    asymmetric: bool
    recipe: Path | None
    codebooks: str | None

    def __post_init__(self) -> None:
        grouped = self.group is not None or self.asymmetric
        if self.recipe is not None and (self.bits is not None or grouped):
            raise ConfigError(
                "--recipe must stand without --bits, --group and --asymmetric: it has them"
            )
        if self.codebooks is not None:
            known = _CODEBOOKS[self.codebooks]
            if grouped:
                raise ConfigError(
                    f"--group and --asymmetric must stand without -{self.codebooks}, whose scales "
                    "are those of outputs"
                )
            if self.bits is not None and self.bits not in known:
                raise ConfigError(
                    f"--bits must be {' or '.join(map(str, known))} with -{self.codebooks}, not "
                    f"{self.bits}; give others by --recipe"
                )
        if self.bits == 8 and grouped:
            raise ConfigError(
                "--bits 8 must stand without --group and --asymmetric: int8 has one scale per "
                "output"
            )

    def recipe_for(self, network: "nn.Module") -> "vq.Recipe":
        """The recipe, read or made."""
        import rescomp
        import vq

        if self.recipe is not None:
            return vq.Recipe.from_yaml(self.recipe)
        if self.codebooks is not None:
            kind = {"ssvq": vq.SSVQ, "vq": vq.VQ}[self.codebooks]
            book = kind(scale="output", **_CODEBOOKS[self.codebooks][self.bits or 2])
            return rescomp.default_recipe(network, book)
        given = {} if self.group is None else {"group": self.group}
        bits = _BITS if self.bits is None else self.bits
        return rescomp.default_recipe(network, bits, zeros=self.asymmetric, **given)


def _split(method: str) -> tuple[str, str | None]:
    """Solver and codebook format of a method's name: gptq-ssvq is (gptq, ssvq)."""
    solver, _, kind = method.rpartition("-")
    return (solver, kind) if solver and kind in _CODEBOOKS else (method, None)


def method_named(name: str, **options: float | str | None) -> "Method":
    """Method of a name: rtn, gptq, gptaq, gptq-r, gptaq-r, qep, which is also exa, or foem.

    Parameters
    ----------
    options : alpha, alpha2, beta, mode
        Settings of :mod:`rescomp.methods`; None is the method's own.

    Raises
    ------
    ConfigError
        If there is no such method, or it has no such setting.
    """
    from rescomp.methods import QEP, Method
    from signbook.hints import did_you_mean

    kinds: dict[str, Any] = {kind.name: kind for kind in get_args(Method)} | {"exa": QEP}
    kind = kinds.get(name)
    if kind is None:
        hint = did_you_mean(name, kinds)
        raise ConfigError(f"method must be one of {', '.join(kinds)}, not {name!r}{hint}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in given.keys() - set(known):
        has = f"has only {', '.join(known)}" if known else "has no such settings"
        raise ConfigError(f"--{key} must come with a method that has it; {name} {has}")
    method: Method = kind(**given)
    return method


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


def _rounded(
    network: "nn.Module", layers: list[str], bits: int | None
) -> "rescomp.ActivationQuantizer | None":
    """Round the inputs of the linear layers among ``layers`` from now on."""
    if bits is None:
        return None
    import rescomp
    from vq.layers import op_of

    modules = dict(network.named_modules())
    linear = [name for name in layers if op_of(modules[name]) in ("linear", "linear_t")]
    if not linear:
        raise ConfigError("--activation-bits must come with linear layers to quantise, not none")
    return rescomp.ActivationQuantizer(network, linear, bits)


def _layers(result: "rescomp.QuantizeResult", names: dict[str, str]) -> list[dict[str, Any]]:
    """What the document says of each layer, with methods by the names that were given."""
    from vq.container import account

    accounts = account([layer.geometry for layer in result.layers])
    return [
        {
            "name": layer.geometry.name,
            "method": layer.geometry.method,
            "solver": names.get(layer.method, layer.method),
            "weights": layer.geometry.weights,
            "bits_per_weight": counted.bits_per_weight,
            "error": layer.report.error,
            "asymmetric_error": layer.report.asymmetric_error,
            "damping": layer.report.damping,
            "dead_columns": layer.report.dead_columns,
            "tokens": layer.report.tokens,
        }
        for layer, counted in zip(result.layers, accounts, strict=True)
    ]


def _print(document: dict[str, Any], damping: float) -> None:
    """Print the layers, and which of them calibration could not settle with ``damping``."""
    rows = document["layers"]
    if document["method"] in METHODS:
        print_learned(rows)
    else:
        _print_layers(rows)
    totals = ("file", "file_bytes", "bits_per_weight", "seconds")
    facts = [(key, text(document[key])) for key in totals]
    if dead := sum(layer.get("dead_columns", 0) for layer in rows):
        facts.append(("dead inputs", f"{dead:,}: always 0 in the data: no weight there matters"))
    if raised := [layer["name"] for layer in rows if layer.get("damping", 0) > damping]:
        facts.append(("raised damping", ", ".join(raised)))
    if blocks := document.get("blocks"):
        title = "trained blocks" if document["method"] in METHODS else "tuned blocks"
        print_table(title, ("name", "before", "after"), blocks)
    if distilled := document.get("distilled"):
        facts.append(("loss, distilled", f"{distilled['before']:.4g} to {distilled['after']:.4g}"))
    print_rows("total", facts)


def _print_layers(layers: list[dict[str, Any]]) -> None:
    """Print layers with their errors."""
    errors = ("error", "asymmetric_error")
    rows = [
        layer | {key: "" if layer[key] is None else f"{layer[key]:.3g}" for key in errors}
        for layer in layers
    ]
    print_table("quantised layers", ("name", "method", "bits_per_weight", *errors, "tokens"), rows)
