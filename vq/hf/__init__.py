"""Compressed models of transformers: ``save_pretrained`` and ``from_pretrained``.

A folder holds ``config.json``, the container ``model.vq.safetensors``, nothing else of the weights,
and a model card. After :func:`register`, transformers' own ``from_pretrained`` reads it: a
quantizer checks the container, decodes each layer in place of its stream, and leaves an ordinary
dense model.
"""

import json
import os
from pathlib import Path
from typing import Any

from torch import nn

from vq.container import FilePlan, atomic_file
from vq.errors import ConfigError, OutputError
from vq.hf.card import CARD, Facts, check_card, model_card
from vq.hf.quantizer import (
    FILE,
    METHOD,
    PACKED,
    SignbookConfig,
    register_classes,
    transformers,
)
from vq.inference.modules import require_activations
from vq.storage import save
from vq.text.files import read_text

__all__ = ["FILE", "METHOD", "from_pretrained", "register", "save_pretrained"]


def register() -> None:
    """Make transformers read folders of :func:`save_pretrained`; calling it again does nothing.

    Raises
    ------
    ConfigError
        If transformers is not installed, or too old to let a quantizer decode what it reads.
    """
    register_classes()


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    card: bool = True,
    base_model: str | None = None,
    license: str | None = None,
    evaluation: Facts | None = None,
) -> FilePlan:
    """Write a compressed model of transformers as a folder that ``from_pretrained`` reads.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The very model that :func:`vq.compress_` was called on.
    folder : path
        Made if it does not exist. ``config.json`` is written last.
    tokenizer : optional
        Anything with a ``save_pretrained``: a tokenizer or a processor.
    card : bool
        Write a model card. One of another writer is never overwritten.
    base_model : str, optional
        Of the card: what was compressed, as the hub names it; by default the name by which the
        model was loaded, if that is one.
    license : str, optional
        Of the card, as the hub names it.
    evaluation : mapping or sequence of mappings, optional
        Of the card: a ``signbook.eval/1`` document, or rows by the names of their columns.

    Returns
    -------
    FilePlan
        Of the container.

    Raises
    ------
    ConfigError
        If transformers is missing, or the model is none of its models, holds no compressed layer,
        or is tied where its configuration does not tie it; if there is another ``README.md``, or
        the card's facts are none.
    OutputError
        If the folder cannot be written.
    """
    # Here and not above: loading needs no compressor.
    from vq.formats.model import compressed_layers
    from vq.hf.saving import check_names, config_json

    register()
    if not isinstance(model, transformers().PreTrainedModel):
        raise ConfigError(
            f"model must be one of transformers, not {type(model).__name__}; "
            "vq.save writes any other"
        )
    check_names(model)
    text = config_json(model)
    place = Path(folder)
    if card:
        check_card(place, base_model, evaluation)
    try:
        place.mkdir(parents=True, exist_ok=True)
        plan = save(model, place / FILE)
        generation = getattr(model, "generation_config", None)
        for part in (generation, tokenizer):
            if part is not None:
                part.save_pretrained(os.fspath(place))
        if card:
            about = model_card(
                model,
                plan,
                [layer.weight.geometry for layer in compressed_layers(model)],
                base_model=base_model,
                license_=license,
                evaluation=evaluation,
            )
            with atomic_file(place / CARD) as file:
                file.write(about.encode())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{place}: must be writable, not refused ({error.strerror or error})"
        ) from error
    with atomic_file(place / "config.json") as file:
        file.write(text.encode())
    return plan


def from_pretrained(
    folder: str | os.PathLike[str],
    *,
    auto_class: Any = None,
    packed: bool = False,
    activations: str = "int8",
    **options: Any,
) -> Any:
    """Load a folder of :func:`save_pretrained`, dense or packed, in evaluation mode.

    Nothing is fetched from a network.

    Parameters
    ----------
    folder : path
    auto_class : class or str, optional
        Of transformers, such as ``AutoModelForCausalLM``. Without it, the class that was saved.
    packed : bool
        Let the compressed layers run from their packed weights, as :func:`vq.pack_` says; no dense
        weight is ever held.
    activations : "int8", "int16" or "exact"
        Of packed layers, see :func:`vq.pack_`.
    **options
        For its ``from_pretrained``, such as ``dtype``.

    Raises
    ------
    ConfigError
        If the folder is of another kind, or transformers does not know its architecture.
    ContainerError
        If the container is damaged or of another layout.
    """
    register()
    config = _read_config(Path(folder))
    kind = auto_class or (config.get("architectures") or ["AutoModel"])[0]
    if isinstance(kind, str):
        known = getattr(transformers(), kind, None)
        if known is None:
            raise ConfigError(f"{folder}: must be a class that transformers knows, not {kind!r}")
        kind = known
    require_activations(activations)
    held = PACKED.set(activations if packed else None)
    try:
        return kind.from_pretrained(os.fspath(folder), local_files_only=True, **options)
    finally:
        PACKED.reset(held)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` and require that it describes a container."""
    path = folder / "config.json"
    try:
        config = json.loads(read_text(path, str(path)))
    except (json.JSONDecodeError, RecursionError) as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise ConfigError(
            f"{path}: must be JSON, but it is none from here on (line {line}, column {column})"
        ) from error
    about = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(about, dict) or about.get("quant_method") != METHOD:
        method = about.get("quant_method") if isinstance(about, dict) else None
        raise ConfigError(f"{path}: quant_method must be {METHOD!r}, not {method!r}")
    SignbookConfig(**about)
    return dict(config)
