"""Quantise by name with the scalar solvers: method, calibration data, file and document."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

import rescomp
import vq
from rescomp.methods import QEP, Method
from signbook.commands.finetune import FILE_NAME
from signbook.evaluation import choose_device
from signbook.files import make_folder, write_json
from signbook.hints import did_you_mean
from signbook.naming import resolve_data, resolve_model
from signbook.tasks import Embedding, LanguageModelling, Task
from vq.container import account
from vq.errors import ConfigError
from vq.layers import op_of
from vq.progress import bar
from vq.recipe.selection import select

__all__ = ["SCHEMA", "calibration_of", "method_named", "quantize_named"]

SCHEMA = "signbook.quantize/1"
_METHODS: dict[str, Any] = {
    ("exa" if kind is QEP else kind.name): kind for kind in get_args(Method)
}
_BITS, _GROUP = 4, 128


def method_named(name: str, **options: float | str | None) -> Method:
    """Method of a name: rtn, gptq, gptaq, gptq-r, gptaq-r, exa or foem.

    Parameters
    ----------
    options : alpha, alpha2, beta, mode
        Settings of :mod:`rescomp.methods`; None is the method's own.

    Raises
    ------
    ConfigError
        If there is no such method, or it has no such setting.
    """
    kind = _METHODS.get(name)
    if kind is None:
        hint = did_you_mean(name, _METHODS)
        raise ConfigError(f"method must be one of {', '.join(_METHODS)}, not {name!r}{hint}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in given.keys() - set(known):
        has = f"has only {', '.join(known)}" if known else "has no such settings"
        raise ConfigError(f"--{key} must come with a method that has it; {name} {has}")
    method: Method = kind(**given)
    return method


def calibration_of(task: Task, count: int) -> list[tuple[Any, None]]:
    """The first ``count`` batches of a task, as (inputs, None).

    Padded rows of tokens become batches of their own, without the padding: it is no text, and a
    model need not know what to mask.
    """
    if isinstance(task, Embedding):
        return [(inputs, None) for inputs in itertools.islice(task.batches, count)]
    if isinstance(task, LanguageModelling):
        texts = itertools.islice(task.batches, count)
        return [(rows, None) for tokens, scored in texts for rows in _unpadded(tokens, scored)]
    return [(inputs, None) for inputs, _ in itertools.islice(task.batches, count)]


def _unpadded(tokens: Tensor, scored: Tensor) -> Iterator[Tensor]:
    places = torch.arange(tokens.shape[1], device=tokens.device)
    lengths = (places * scored).amax(dim=1) + 1
    if bool((lengths == tokens.shape[1]).all()):
        yield tokens
    else:
        yield from (row[None, :n] for row, n in zip(tokens, lengths.tolist(), strict=True))


def quantize_named(
    model: str,
    data: str,
    out: Path,
    *,
    method: str = "gptq",
    options: dict[str, float | str | None] | None = None,
    bits: int | None = None,
    group: int | None = None,
    asymmetric: bool = False,
    recipe: Path | None = None,
    settings: rescomp.Settings | None = None,
    rotate: bool = False,
    activation_bits: int | None = None,
    weights: Path | None = None,
    batches: int = 16,
    offload: bool = False,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
) -> dict[str, Any]:
    """Quantise a named model and write its container: the ``signbook.quantize/1`` document.

    ``recipe`` stands in place of ``bits`` (4), ``group`` (128) and ``asymmetric``. Finished blocks
    are kept in ``out/checkpoints``.

    Raises
    ------
    ConfigError
        If names or settings cannot work, alone or together.
    """
    start = time.perf_counter()
    chosen = method_named(method, **(options or {}))
    if recipe is not None and (bits is not None or group is not None or asymmetric):
        raise ConfigError(
            "--recipe must stand without --bits, --group and --asymmetric: it has them"
        )
    if bits == 8 and (group is not None or asymmetric):
        raise ConfigError(
            "--bits 8 must stand without --group and --asymmetric: int8 has one scale per output"
        )
    if batches < 1:
        raise ConfigError(f"--batches must be positive, not {batches}")
    make_folder(out)
    torch.manual_seed(seed)
    network = resolve_model(model, weights).to(choose_device(device))
    if rotate:
        _rotate(network, seed)
    if recipe is not None:
        rules = vq.Recipe.from_yaml(recipe)
    else:
        rules = rescomp.default_recipe(
            network,
            _BITS if bits is None else bits,
            group=_GROUP if group is None else group,
            zeros=asymmetric,
        )
    layers = [layer.name for layer in select(network, rules).layers]
    calibration = calibration_of(resolve_data(data), batches)
    rounded = _rounded(network, layers, activation_bits)
    with bar("quantising", len(layers)) as advance:
        result = rescomp.quantize_(
            network,
            calibration,
            rules,
            chosen,
            settings=settings,
            checkpoint_dir=out / "checkpoints",
            resume=resume,
            offload=offload,
            activations=rounded,
            seed=seed,
            progress=lambda done, total, name: advance(note=name),
        )
    file = vq.save(network, out / FILE_NAME)
    document = {
        "schema": SCHEMA,
        "file": str(out / FILE_NAME),
        "file_bytes": file.file_bytes,
        "bits_per_weight": result.bits_per_weight,
        "method": method,
        "settings": {
            "method": repr(chosen),
            "solver": repr(settings or rescomp.Settings()),
            "rotated": rotate,
            "activation_bits": activation_bits,
        },
        "layers": _layers(result),
        "kept": result.kept,
        "seconds": time.perf_counter() - start,
    }
    write_json(out / "quantize.json", document)
    return document


def _rotate(network: nn.Module, seed: int) -> None:
    """Rotate a model that another of the same name can be filled with afterwards."""
    embeddings = [m.weight for m in network.modules() if isinstance(m, nn.Embedding)]
    head = getattr(network, "lm_head", None)
    if head is not None and any(head.weight is weight for weight in embeddings):
        raise ConfigError(
            "--rotate must be given a model whose output layer is not tied to its embedding: the "
            "rotated file would not fit it; use rescomp.rotate_ and vq.hf.save_pretrained"
        )
    rescomp.rotate_(network, seed=seed)


def _rounded(
    network: nn.Module, layers: list[str], bits: int | None
) -> rescomp.ActivationQuantizer | None:
    """Round the inputs of the linear layers among ``layers`` from now on."""
    if bits is None:
        return None
    modules = dict(network.named_modules())
    linear = [name for name in layers if op_of(modules[name]) in ("linear", "linear_t")]
    if not linear:
        raise ConfigError("--activation-bits must come with linear layers to quantise, not none")
    return rescomp.ActivationQuantizer(network, linear, bits)


def _layers(result: rescomp.QuantizeResult) -> list[dict[str, Any]]:
    accounts = account([layer.geometry for layer in result.layers])
    return [
        {
            "name": layer.geometry.name,
            "method": layer.geometry.method,
            "solver": "exa" if layer.method == QEP.name else layer.method,
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
