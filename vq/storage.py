"""Save a compressed model as one container, and load it into a fresh model."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.container import Container, FilePlan, open_container, write_container
from vq.errors import ConfigError, ContainerError, bulleted
from vq.formats.kept import kept_of, tensor_of, tied_tensors
from vq.formats.model import compressed_layers, is_compressed, provenance_of
from vq.inference.decode import decode_weight
from vq.integer.store import is_integer_tensor

__all__ = ["load", "save"]


def save(model: nn.Module, path: str | os.PathLike[str]) -> FilePlan:
    """Write a compressed model to ``path`` (``*.vq.safetensors``).

    The weights that the model computes with now and those that any reader decodes from the file
    are equal bit for bit. The file appears only when it is complete.

    Raises
    ------
    ConfigError
        If the model holds no compressed layer.
    OutputError
        If the file cannot be written; what existed before is intact.
    """
    layers = list(compressed_layers(model))
    if not layers:
        raise ConfigError("model must hold a compressed layer, not none; call vq.compress_ first")
    kept = {names[0]: kept_of(tensor) for names, tensor in _kept_tensors(model)}
    return write_container(path, [layer.to_layer() for layer in layers], kept, provenance_of(model))


def load(
    path: str | os.PathLike[str],
    *,
    into: nn.Module,
    device: str | torch.device | None = None,
    rom: Mapping[str, NDArray[np.int8]] | None = None,
) -> nn.Module:
    """Read a container into ``into``, a model of the same architecture, and return it.

    The compressed weights are decoded; the result is an ordinary dense model. Tensors that the
    model ties are stored once and stay tied.

    Parameters
    ----------
    device : str or torch.device, optional
        Where to decode, from the packed bytes, and where to move the model. Without it the CPU
        decodes and the model stays where it is. The weights are the same bits everywhere.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the file only names, see :func:`vq.container.open_container`.

    Raises
    ------
    ContainerError
        If the file is damaged or does not fit the model; the model is then unchanged.
    """
    with open_container(path, rom=rom) as container:
        own = (name for name in container.kept_names if not is_integer_tensor(name))
        state = {name: tensor_of(container.kept(name)) for name in own}
        for entry in container.layers:
            name = entry.geometry.name
            state[f"{name}.weight"] = decode_weight(container, name, device or "cpu")
        for names, _ in tied_tensors(into.state_dict(keep_vars=True)):
            stored = next((name for name in names if name in state), None)
            if stored is not None:
                state.update(dict.fromkeys(names, state[stored]))
        _check_fit(container, state, into.state_dict())
    into.load_state_dict(state)
    return into if device is None else into.to(device)


def _kept_tensors(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Tensors that no compressed layer holds, each once, with all its names."""
    prefixes = tuple(
        f"{name}.parametrizations.weight."
        for name, module in model.named_modules(remove_duplicate=False)
        if is_compressed(module)
    )
    state = model.state_dict(keep_vars=True)
    return tied_tensors({n: t for n, t in state.items() if not n.startswith(prefixes)})


def _check_fit(container: Container, state: Mapping[str, Tensor], wanted: dict[str, Any]) -> None:
    problems = [f"tensor {name!r} must be in the file" for name in wanted.keys() - state.keys()]
    problems += [f"tensor {name!r} must be in the model" for name in state.keys() - wanted.keys()]
    for name in state.keys() & wanted.keys():
        have, want = tuple(state[name].shape), tuple(wanted[name].shape)
        if have != want:
            problems.append(f"tensor {name!r} must have shape {want}, not {have}")
    if problems:
        raise ContainerError(bulleted(f"{container.path}: fit to the model", sorted(problems)))
