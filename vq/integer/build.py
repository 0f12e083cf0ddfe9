"""Build the integer graph of a compressed model: trace, calibrate, turn reals into integers."""

import copy
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.calibration.batches import each, fingerprint, shapes_of, split
from vq.container import Container, ContainerError, open_container
from vq.errors import ConfigError, bulleted
from vq.formats.wrappers import bare
from vq.integer.calibrate import activation_scales
from vq.integer.fixed import ACCUMULATOR_MAX, to_fixed
from vq.integer.golden import IntegerModel, Parameters, reach
from vq.integer.graph import Graph, Node, output_shape, version_for
from vq.integer.numbers import with_numbers
from vq.integer.store import check_parameters, products_of, store_integer
from vq.integer.trace import Draft, Traced, trace_model
from vq.storage import load

__all__ = ["add_integer", "integerize"]

_PASSES_ON = ("shortcut", "maxpool", "relu", "flatten")

F64 = NDArray[np.float64]


def add_integer(
    path: str | os.PathLike[str],
    model: nn.Module,
    batches: Iterable[Any],
    *,
    out: str | os.PathLike[str] | None = None,
    choice: str = "mse",
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
) -> IntegerModel:
    """Give a container its integer graph.

    Parameters
    ----------
    path : path
        A compressed model.
    model : nn.Module
        A model of the same architecture, which is not changed.
    batches : iterable of inputs or (inputs, ...) tuples
        Calibration data, the same at every iteration.
    out : path, optional
        Where to write; without it, the container itself is replaced once the new one is complete.
    choice : str
        How activation scales are chosen: "max", "percentile" or "mse".
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the file only names.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the model has operations that no integer graph has, or layers that are not compressed.
    ContainerError
        If the file is damaged or does not fit the model.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    dense = load(path, into=copy.deepcopy(bare(model)), rom=rom, progress=progress).eval()
    with open_container(path, rom=rom) as container:
        integer = integerize(dense, container, batches, choice=choice, progress=progress)
        store_integer(container, integer, path if out is None else out)
    return integer


def integerize(
    model: nn.Module,
    container: Container,
    batches: Iterable[Any],
    *,
    choice: str = "mse",
    progress: bool = True,
) -> IntegerModel:
    """Build the integer graph of ``model``, which holds the weights of ``container``.

    Weights stay the stored integers. Scales, batch norms and biases become the multipliers,
    shifts and biases of the layers they follow.

    Raises
    ------
    ConfigError, ContainerError
        As :func:`add_integer`.
    """
    container.require_plain("an integer graph")
    inputs = _inputs(batches)
    traced = trace_model(model.eval())
    _require_compressed(traced, container)
    values = {d.name: d.value for d in traced.drafts}
    scales, shapes = activation_scales(traced.module, values, inputs, choice, progress=progress)
    for draft in traced.drafts:
        if draft.op in _PASSES_ON:
            scales[draft.name] = scales[draft.inputs[0]]
    geometries = {entry.geometry.name: entry.geometry for entry in container.layers}
    nodes: dict[str, Node] = {}
    for draft in traced.drafts:
        node = _node(draft, shapes[draft.name])
        given = [nodes[name].shape for name in node.inputs]
        if output_shape(node, given, geometries.get(node.layer)) != node.shape:
            raise ConfigError(f"node {node.name!r}: must keep the batch and its axes in order")
        nodes[node.name] = node
    version = version_for(nodes.values(), geometries)
    graph = Graph(tuple(nodes.values()), choice, fingerprint(inputs), version)
    parameters = {}
    for draft in traced.drafts:
        if (p := _parameters(draft, nodes, scales, model, container)) is not None:
            check_parameters(nodes[draft.name], p)
            parameters[draft.name] = p
    first = graph.input
    step = scales[first.name]
    return IntegerModel(
        graph,
        parameters,
        _per_channel(traced.gain / step, first.shape),
        _per_channel(traced.offset / step, first.shape),
        np.array([scales[node.name] for node in graph.nodes], np.float32),
    )


def _inputs(batches: Iterable[Any]) -> list[Tensor]:
    """The inputs of batches: a list, because shuffled batches would differ from pass to pass."""
    found: list[Tensor] = []
    for number, batch in enumerate(each(batches), 1):
        inputs = split(batch)[0]
        if not isinstance(inputs, Tensor):
            raise ConfigError(
                f"calibration batch {number}, {shapes_of(batch)}: inputs must be one tensor, "
                f"not {type(inputs).__name__}"
            )
        first = found[0] if found else inputs
        if inputs.shape[1:] != first.shape[1:]:
            raise ConfigError(
                f"calibration batch {number}, {shapes_of(batch)}: inputs must be shaped like "
                f"those of batch 1, {shapes_of(first)}, but for the first axis"
            )
        found.append(inputs)
    return found


def _require_compressed(traced: Traced, container: Container) -> None:
    stored = {entry.geometry.name for entry in container.layers}
    problems = [
        f"layer {d.layer!r} must be compressed, not kept; give it Int8() in the recipe"
        for d in traced.drafts
        if d.layer and d.layer not in stored
    ]
    if problems:
        raise ConfigError(bulleted(f"{container.path}: integer graph", problems))


def _node(draft: Draft, shape: tuple[int, ...]) -> Node:
    attributes = {k: v for k, v in draft.attributes.items() if k not in ("keeps", "spatial")}
    return Node(draft.name, draft.op, draft.inputs, shape, draft.layer, draft.relu, **attributes)


def _parameters(
    draft: Draft,
    nodes: Mapping[str, Node],
    scales: Mapping[str, float],
    model: nn.Module,
    container: Container,
) -> Parameters | None:
    """Integers of a node that requantises, else None."""
    step = scales[draft.name]
    given = [scales[name] for name in draft.inputs]
    try:
        if draft.op in ("linear", "conv"):
            return _weighted(draft, given[0], step, model, container)
        if draft.op == "add":
            return Parameters(*to_fixed(np.array(given) / step, shared=True))
        if draft.op == "global_avgpool":
            count = np.prod(nodes[draft.inputs[0]].shape[1:])
            return Parameters(*to_fixed(np.array([given[0] / step / count])))
    except ValueError as error:
        if isinstance(error, ContainerError):
            raise
        raise ConfigError(f"node {draft.name!r}: {error}; look at its activations") from None
    return None


def _weighted(
    draft: Draft, step_in: float, step_out: float, model: nn.Module, container: Container
) -> Parameters:
    """Fold scale, norm and bias of a layer."""
    products, scale = products_of(container, draft.layer)
    gain, bias = _affine(model.get_submodule(draft.layer), draft.norm, len(products.weight))
    unit = step_in * scale * gain
    most = reach(products)
    if (most >= ACCUMULATOR_MAX).any():
        raise ConfigError(
            f"layer {draft.layer!r}: accumulator must fit int32; it has too many inputs"
        )
    return with_numbers(products, most, unit, bias, step_out)


def _affine(module: nn.Module, norm: nn.Module | None, outputs: int) -> tuple[F64, F64]:
    """Gain and bias [O] that a layer's bias and its norm apply to the layer's products."""
    own = module.bias
    bias = np.zeros(outputs) if own is None else _numpy(own)
    if norm is None:
        return np.ones(outputs), bias
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None and norm.running_mean is not None
    gain = 1 / np.sqrt(_numpy(norm.running_var) + norm.eps)
    gain = gain if norm.weight is None else gain * _numpy(norm.weight)
    shift = np.zeros(outputs) if norm.bias is None else _numpy(norm.bias)
    return gain, (bias - _numpy(norm.running_mean)) * gain + shift


def _numpy(tensor: Any) -> F64:
    assert isinstance(tensor, Tensor)
    found: F64 = tensor.detach().cpu().double().numpy()
    return found


def _per_channel(value: Tensor, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A constant of the input as one number per channel, [C] float32."""
    column = (shape[0], *[1] * (len(shape) - 1))
    try:
        spread = torch.broadcast_to(value.squeeze(0) if value.ndim > len(shape) else value, column)
    except RuntimeError:
        raise ConfigError(
            f"arithmetic at the input must be per channel, not of shape {list(value.shape)}"
        ) from None
    return spread.reshape(-1).numpy().astype(np.float32)
