"""A container in the architecture that a name says, dense or packed."""

from pathlib import Path
from typing import Any

from torch import nn

import vq
from signbook.naming import resolve_model
from vq.container.rom import roms_of
from vq.errors import ConfigError
from vq.inference.modules import require_activations

__all__ = ["check_activations", "load_file"]


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


def load_file(
    model: str,
    file: Path,
    *,
    rom: Path | None = None,
    packed: bool = False,
    activations: str | None = None,
) -> nn.Module:
    """Load a container into the model of a name, whose own weights are not asked for.

    Parameters
    ----------
    rom : path, optional
        The array file of a codebook that the container only names.
    packed : bool
        Let its layers run from their packed weights.
    activations : str, optional
        As :func:`vq.pack_` takes them; by default what that function does.

    Raises
    ------
    ConfigError
        If the name leads nowhere.
    ContainerError
        If ``file`` is damaged or is of another architecture.
    """
    into = resolve_model(model, pretrained=False)
    if not packed:
        return vq.load(file, into=into, rom=roms_of(rom))
    how: dict[str, Any] = {} if activations is None else {"activations": activations}
    return vq.load(file, into=into, rom=roms_of(rom), packed=True, **how)
