"""Save a compressed model as one container, and load it into a fresh model."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.activations.runtime import attach_stored, attached, replaced, runtime_tensors
from vq.calibration.whole import whole
from vq.container import Container, FilePlan, Geometry, open_container, write_container
from vq.errors import ConfigError, ContainerError, bulleted
from vq.formats.kept import kept_of, tensor_of, tied_tensors
from vq.formats.model import (
    compressed_layers,
    kept_tensors,
    provenance_of,
    require_alone,
    set_provenance,
)
from vq.formats.remaining import require_plain
from vq.formats.wrappers import bare, listed
from vq.inference.decode import decode_weight
from vq.inference.device import choose_device
from vq.inference.modules import (
    is_packed,
    packed_layers,
    require_activations,
    stored_weights,
    use_packed,
    with_tied,
)
from vq.progress import bar, track
from vq.recipe.plain import check_values

__all__ = ["load", "save"]


def save(model: nn.Module, path: str | os.PathLike[str], *, progress: bool = True) -> FilePlan:
    """Write a compressed model to ``path`` (``*.vq.safetensors``).

    The weights that the model computes with now and those that any reader decodes from the file
    are equal bit for bit. The file appears only when it is complete.

    A model that was cast since it was compressed (``.half()``, ``.to(dtype)``) computes with the
    stored weights rounded to its dtype; the file is that of the model before the cast. For that,
    norms, biases and kept layers stay in memory in both dtypes from a cast on. Names are those of
    the bare model, also if it is in ``torch.compile`` or ``DataParallel`` by now. What a method has
    left in the model beside its weights (:mod:`vq.activations.runtime`) is stored, too, and raises
    the layout to ``vqstream/2``.

    Parameters
    ----------
    progress : bool
        Show that work goes on when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the model holds no compressed layer, tensors without values, wrapped layers, or
        compressed weights with another parametrisation on top.
    OutputError
        If the file cannot be written; what existed before is intact.
    """
    model = bare(model)
    check_values(model)
    layers = {layer.name: layer.to_layer for layer in compressed_layers(model)}
    layers |= {name: partial(weight.to_layer, name) for name, weight in packed_layers(model)}
    if not layers:
        raise ConfigError("model must hold a compressed layer, not none; call vq.compress_ first")
    require_alone(model)
    with bar("writing the file", None, enabled=progress):
        kept = {name: kept_of(tensor) for name, tensor in _kept(model).items()}
        kept |= runtime_tensors(model)
        stored = [layers[name]() for name, _ in model.named_modules() if name in layers]
        return write_container(path, stored, kept, provenance_of(model))


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """Tensors that neither a compressed layer nor a packed one holds."""
    own = tuple(
        f"{name}.packed." for name, m in model.named_modules(remove_duplicate=False) if is_packed(m)
    )
    return {name: t for name, t in kept_tensors(model).items() if not name.startswith(own)}


def load(
    path: str | os.PathLike[str],
    *,
    into: nn.Module,
    device: str | torch.device | None = None,
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    packed: bool = False,
    activations: str = "int8",
    progress: bool = True,
) -> nn.Module:
    """Read a container into ``into``, a model of the same architecture, and return it.

    The compressed weights are decoded; the result is an ordinary dense model, in which what the
    file says remains at run time is in place (:mod:`vq.activations.runtime`). Tensors that the
    model ties are stored once and stay tied. Whatever fails, a hook of the model, the move to
    ``device`` or Ctrl-C among it, the model stays as it was; until the end, memory holds both.

    Parameters
    ----------
    device : str or torch.device, optional
        Where to decode, from the packed bytes, and where to move the model. Without it the CPU
        decodes and the model stays where it is. The weights are the same bits everywhere.
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the file only names, see :func:`vq.container.open_container`.
    packed : bool
        Do not decode: let the layers run from their packed weights, as :func:`vq.pack_` says. The
        model may be on the meta device, where it takes no memory; at no time does memory hold a
        dense weight. Kept tensors have the dtypes that the file gives them.
    activations : "int8", "int16" or "exact"
        Of packed layers, see :func:`vq.pack_`.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ContainerError
        If the file is damaged or does not fit the model.
    ConfigError
        If layers of the model are wrapped (``torch.compile``, ``DataParallel``); all of it may be.
        If it is compressed already, has parts that remain at run time, no shapes yet, or no room
        for values (on the meta device), or this machine has no such ``device``.
    """
    model = bare(into)
    require_activations(activations)
    if not packed:
        check_values(model)
    done = [layer.name for layer in compressed_layers(model)]
    done += [name for name, _ in packed_layers(model)]
    if done:
        raise ConfigError(
            f"model to load into must be as before its compression, but {listed(done)} are "
            "compressed; give a fresh one"
        )
    require_plain(model, "vq.load")
    place = None if device is None else choose_device(device)
    with open_container(path, rom=rom) as container:
        state = {}
        for name in filter(container.is_own, container.kept_names):
            state[name] = tensor_of(container.kept(name))
            container.forget(name)
        if packed:
            return _load_packed(into, container, state, place, activations, progress)
        for entry in track(container.layers, "decoding weights", enabled=progress):
            name = entry.geometry.name
            state[f"{name}.weight"] = decode_weight(container, name, place or "cpu")
        for names, _ in tied_tensors(model.state_dict(keep_vars=True)):
            stored = next((name for name in names if name in state), None)
            if stored is not None:
                state.update(dict.fromkeys(names, state[stored]))
        gone = replaced(container)
        wanted = {n: t for n, t in model.state_dict().items() if not n.startswith(gone)}
        _check_fit(container, state, wanted)
        with whole(into, trained=True), attached(model):
            attach_stored(model, container)
            model.load_state_dict(state)
            if place is not None:
                into.to(place)
            return into


def _load_packed(
    into: nn.Module,
    container: Container,
    state: dict[str, Tensor],
    place: torch.device | None,
    activations: str,
    progress: bool,
) -> nn.Module:
    """Put kept tensors and packed weights of a file in the place of a model's own."""
    model = bare(into)
    held = model.state_dict(keep_vars=True)
    geometries = {f"{e.geometry.name}.weight": e.geometry for e in container.layers}
    shapes = {name: torch.empty(_module_shape(g), device="meta") for name, g in geometries.items()}
    found = {**state, **shapes}
    groups = tied_tensors(held)
    for names, _ in groups:
        stored = next((name for name in names if name in found), None)
        if stored is not None:
            found.update(dict.fromkeys(names, found[stored]))
    _check_fit(container, found, held)
    packed = stored_weights(container, model, activations, progress=progress)
    weights = with_tied(model, packed)
    with whole(into):
        for names, tensor in groups:
            if names[0].removesuffix(".weight") not in weights:
                _replace(model, names, tensor, found[names[0]])
        use_packed({name: model.get_submodule(name) for name in weights}, weights)
        if left := [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]:
            raise ConfigError(
                f"model must have values for {listed(left)}, which are in no file; make them on "
                "the CPU before, or load into a model that is not on the meta device"
            )
        if place is not None:
            into.to(place)
        attach_stored(model, container)
        set_provenance(model, container.provenance)
        return into.requires_grad_(False)


def _module_shape(g: Geometry) -> tuple[int, ...]:
    return g.shape[::-1] if g.op == "linear_t" else g.shape


def _replace(model: nn.Module, names: list[str], old: Tensor, new: Tensor) -> None:
    """Let a model hold another tensor under all names of one; on a device it stays there."""
    learns = isinstance(old, nn.Parameter)
    value = new if old.is_meta else new.to(old.device)
    if learns:
        value = nn.Parameter(value, requires_grad=False)
    for name in names:
        owner, _, own = name.rpartition(".")
        module = model.get_submodule(owner)
        table: dict[str, Any] = module._parameters if learns else module._buffers
        table[own] = value


def _check_fit(container: Container, state: Mapping[str, Tensor], wanted: dict[str, Any]) -> None:
    problems = [f"tensor {name!r} must be in the file" for name in wanted.keys() - state.keys()]
    problems += [f"tensor {name!r} must be in the model" for name in state.keys() - wanted.keys()]
    for name in state.keys() & wanted.keys():
        have, want = tuple(state[name].shape), tuple(wanted[name].shape)
        if have != want:
            problems.append(f"tensor {name!r} must have shape {want}, not {have}")
    if problems:
        raise ContainerError(bulleted(f"{container.path}: fit to the model", sorted(problems)))
