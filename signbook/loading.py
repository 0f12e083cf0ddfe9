"""Models as the command line names them: with their own weights, or those of a container."""

from pathlib import Path
from typing import Any

from torch import nn

import vq
from signbook.naming import resolve_model
from signbook.zoo.hub import quiet_transformers
from vq.container.rom import roms_of
from vq.errors import ConfigError
from vq.hf import FILE, from_pretrained
from vq.inference.modules import require_activations

__all__ = ["check_activations", "load_model"]


def check_activations(packed: bool, activations: str | None) -> None:
    """Refuse a rounding of activations that there is not, or that nothing would use.

    Raises
    ------
    ConfigError
    """
    if activations is None:
        return
    if not packed:
        raise ConfigError("--activations must come with --packed, whose layers round them")
    require_activations(activations)


def load_model(
    model: str,
    weights: Path | None = None,
    file: Path | None = None,
    *,
    rom: Path | None = None,
    packed: bool = False,
    activations: str | None = None,
) -> nn.Module:
    """Load what the command line names: a container in the model of a name, or that model itself.

    Parameters
    ----------
    model : str
    weights : path, optional
        Those of the model itself; with ``file``, nobody's.
    file : path, optional
        The container.
    rom : path, optional
        The array file of a codebook that the container only names.
    packed : bool
        Let the container's layers run from their packed weights; it is ``file``, or that in a
        folder ``hf:PATH`` that :func:`vq.hf.save_pretrained` wrote.
    activations : str, optional
        As :func:`vq.pack_` takes them; by default what that function does.

    Raises
    ------
    ConfigError
        If the name leads nowhere, or nothing is there to be packed, or to name the codebook.
    ContainerError
        If ``file`` is damaged or is of another architecture.
    """
    if rom is not None and file is None:
        raise ConfigError("--rom must come with --file, the container that names the codebook")
    how: dict[str, Any] = {} if activations is None else {"activations": activations}
    if file is not None:
        into = resolve_model(model, pretrained=False, hollow=packed)
        return vq.load(file, into=into, rom=roms_of(rom), packed=packed, **how)
    if not packed:
        return resolve_model(model, weights)
    kind, _, folder = model.partition(":")
    if weights is not None or kind != "hf" or not Path(folder, FILE).is_file():
        raise ConfigError(
            "--packed must come with --file, the container whose layers stay packed, or with a "
            f"folder hf:PATH that holds {FILE}"
        )
    with quiet_transformers(f"model {model!r}"):
        found: nn.Module = from_pretrained(folder, packed=True, **how)
    return found
