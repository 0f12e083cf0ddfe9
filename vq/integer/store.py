"""The integer graph inside a container: kept tensors whose names begin with ``_integer.``.

This needs no change of the layout: to a reader that does not know integer graphs they are tensors
like any other.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vq.container import (
    ConfigError,
    Container,
    ContainerError,
    FilePlan,
    Geometry,
    Kept,
)
from vq.container.constants import INTEGER_PREFIX
from vq.container.copying import write_copy
from vq.container.header import parse_json
from vq.container.order import from_matrix
from vq.integer.fixed import ACCUMULATOR_MAX, MULTIPLIER_MAX, SHIFT_MAX
from vq.integer.golden import IntegerModel, Parameters, reach
from vq.integer.graph import Graph, Node
from vq.integer.groups import GROUP_SHIFT_MAX, partial_reach, to_groups

__all__ = [
    "GRAPH", "PREFIX", "SCALES", "STEPS_VERSION", "TOKENS_VERSION", "array_of", "check_parameters",
    "group_fields", "is_integer_tensor", "products_of", "read_by", "read_integer",
    "reals_of", "run", "store_integer", "version_of", "weight_of_layer",
]  # fmt: skip

_Model = TypeVar("_Model")

PREFIX = INTEGER_PREFIX
GRAPH = PREFIX + "graph"
SCALES = PREFIX + "scales"
#: Version of graphs of time steps (:mod:`vq.integer.steps`).
STEPS_VERSION = 3
#: Version of graphs of tokens (:mod:`vq.integer.tokens`).
TOKENS_VERSION = 4
_DTYPES = {"U8": "|u1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F32": "<f4"}


def is_integer_tensor(name: str) -> bool:
    """Whether a kept tensor belongs to the integer graph and not to the model."""
    return name.startswith(PREFIX)


def version_of(container: Container) -> object:
    """What a file's integer graph says its version is; None if it has none, or a damaged one."""
    if GRAPH not in container.kept_names:
        return None
    try:
        found = parse_json(container.kept(GRAPH).data, "integer graph")
    except ContainerError:
        return None  # whoever reads the graph will say what is wrong
    return found.get("version") if isinstance(found, dict) else None


def read_integer(container: Container) -> IntegerModel:
    """Read and check the integer graph of an open container, weights included.

    What is returned cannot overflow: for every output, the bias and the most that the products can
    add up to stay within int32, and so does the sum of every group.

    Raises
    ------
    ContainerError
        If there is none, or anything about it is wrong.
    ConfigError
        If parts of the model remain at run time, or the graph is one of time steps or of tokens.
    """
    if version_of(container) == TOKENS_VERSION:
        raise ConfigError(
            f"{container.path}: integer graph must be of a convolutional network, not of a "
            "transformer; signbook eval --integer takes those"
        )
    if version_of(container) == STEPS_VERSION:
        raise ConfigError(
            f"{container.path}: integer graph must be of a network that is called once, not of "
            "time steps; signbook simulate, estimate and eval --integer take those"
        )
    container.require_plain("an integer graph")
    return read_by(container, _read)


def read_by(container: Container, read: Callable[[Container], _Model]) -> _Model:
    """What ``read`` makes of the graph in a container; its errors name the file.

    Raises
    ------
    ContainerError
        If there is none, or as ``read`` says.
    """
    if GRAPH not in container.kept_names:
        raise ContainerError(
            f"{container.path}: must hold an integer graph, not none; run: signbook integer"
        )
    try:
        return read(container)
    except ContainerError as error:
        text, prefix = str(error), f"{container.path}: "
        raise (error if text.startswith(prefix) else ContainerError(prefix + text)) from None


def _read(container: Container) -> IntegerModel:
    kept = {n: container.kept(n) for n in container.kept_names if is_integer_tensor(n)}
    layers = {entry.geometry.name: entry.geometry for entry in container.layers}
    graph = Graph.from_json(array_of(kept, GRAPH, "U8").tobytes(), layers)
    wanted = {GRAPH, SCALES} | {
        f"{PREFIX}{node.name}.{field}"
        for node in graph.nodes
        for field in _fields(node, layers.get(node.layer))
    }
    for name in sorted(kept.keys() - wanted):
        raise ContainerError(f"tensor {name!r}: must belong to a node of the integer graph")
    parameters = {
        node.name: _parameters(container, node, kept)
        for node in graph.nodes
        if "shift" in _fields(node, None)
    }
    first = f"{PREFIX}{graph.input.name}"
    channels = (graph.input.shape[0],)
    model = IntegerModel(
        graph,
        parameters,
        reals_of(array_of(kept, f"{first}.gain", "F32", channels), f"{first}.gain"),
        reals_of(array_of(kept, f"{first}.offset", "F32", channels), f"{first}.offset"),
        reals_of(array_of(kept, SCALES, "F32", (len(graph.nodes),)), SCALES),
    )
    if not (model.scales > 0).all():
        raise ContainerError(f"tensor {SCALES!r}: must be positive")
    return model


def _fields(node: Node, g: Geometry | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensors of a node, their dtypes and shapes; ``g`` is its layer, if it has one."""
    if node.op == "input":
        return dict.fromkeys(("gain", "offset"), ("F32", node.shape[:1]))
    if node.op not in ("linear", "conv", "add", "global_avgpool"):
        return {}
    outputs = g.O if g else 1
    multipliers = 2 if node.op == "add" else outputs
    fields: dict[str, tuple[str, tuple[int, ...]]] = {
        "multiplier": ("I16", (multipliers,)),
        "shift": ("U8", (outputs,)),
    }
    if g:
        fields["bias"] = "I32", (outputs,)
    return fields | (group_fields(g) if g else {})


def group_fields(g: Geometry) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensors that a layer's groups have, their dtypes and shapes."""
    if not g.group:
        return {}
    return {"group_scale": ("I16", (g.O, g.groups // g.O)), "group_shift": ("U8", (1,))}


def _parameters(container: Container, node: Node, kept: Mapping[str, Kept]) -> Parameters:
    g = container.geometry(node.layer) if node.layer else None
    found = {
        field: array_of(kept, f"{PREFIX}{node.name}.{field}", dtype, shape)
        for field, (dtype, shape) in _fields(node, g).items()
    }
    weight = weight_of_layer(container, node.layer) if node.layer else np.empty(0, np.int8)
    p = Parameters(
        found["multiplier"].astype(np.int16),
        found["shift"].astype(np.uint8),
        found.get("bias", np.empty(0)).astype(np.int32),
        weight,
        g.group if g else 0,
        found.get("group_scale", np.empty(0)).astype(np.int16),
        found.get("group_shift", np.empty(0)).astype(np.uint8),
    )
    check_parameters(node, p)
    return p


def check_parameters(node: Node, p: Parameters) -> None:
    """Require ranges that hardware has, and accumulators that cannot overflow.

    Raises
    ------
    ContainerError
    """
    where = f"integer graph: node {node.name!r}"
    for field in ("multiplier", "group_scale"):
        values = getattr(p, field)
        if values.size and int(values.min()) < -MULTIPLIER_MAX:
            raise ContainerError(f"{where}: {field} must be at least {-MULTIPLIER_MAX}")
    if p.shift.size and not 1 <= int(p.shift.min()) <= int(p.shift.max()) <= SHIFT_MAX:
        raise ContainerError(
            f"{where}: shift must be 1 to {SHIFT_MAX}, not {p.shift.min()} to {p.shift.max()}"
        )
    if p.group:
        if int(p.group_shift[0]) > GROUP_SHIFT_MAX:
            raise ContainerError(
                f"{where}: group_shift must be 0 to {GROUP_SHIFT_MAX}, not {p.group_shift[0]}"
            )
        partial = partial_reach(p.weight, p.group)
        if (partial > ACCUMULATOR_MAX).any():
            raise ContainerError(
                f"{where}: sum of a group must fit int32, but can reach {int(partial.max())}"
            )
    if node.layer:
        most = reach(p) + np.abs(p.bias.astype(np.int64))
        if (most > ACCUMULATOR_MAX).any():
            raise ContainerError(
                f"{where}: accumulator of output {int(most.argmax())} must fit int32, "
                f"but can reach {int(most.max())}"
            )


def weight_of_layer(container: Container, layer: str) -> NDArray[np.int8]:
    """Integer weights as :class:`Parameters` hold them."""
    g = container.geometry(layer)
    return np.ascontiguousarray(from_matrix(container.integers(layer), g.shape, g.axis))


def products_of(
    container: Container, layer: str, most: int = 128
) -> tuple[Parameters, NDArray[np.float64]]:
    """Weights of a layer, with the scales of its groups; and the scale [1] or [O] of their sums.

    Multipliers, shifts and biases are still empty. Inputs are of magnitude at most ``most``, a
    multiple of 128.
    """
    g, weight = container.geometry(layer), weight_of_layer(container, layer)
    p = Parameters(np.empty(0, np.int16), np.empty(0, np.uint8), weight=weight)
    if not g.group:
        return p, container.scale(layer).astype(np.float64)
    partial = partial_reach(weight, g.group) * (most // 128)
    scales, shift, unit = to_groups(container.group_scales(layer).astype(np.float64), partial)
    grouped = replace(p, group=g.group, group_scale=scales, group_shift=np.array([shift], np.uint8))
    return grouped, unit


def array_of(
    kept: Mapping[str, Kept], name: str, dtype: str, shape: tuple[int, ...] | None = None
) -> NDArray[np.generic]:
    """A tensor of an integer graph, which must be of this dtype and shape."""
    if name not in kept:
        raise ContainerError(f"tensor {name!r}: must be in the file")
    given = kept[name]
    want = shape if shape is not None else (len(given.data),)
    if (given.dtype, given.shape) != (dtype, want):
        raise ContainerError(
            f"tensor {name!r}: must be {dtype} {list(want)}, not {given.dtype} {list(given.shape)}"
        )
    return np.frombuffer(given.data, _DTYPES[dtype]).reshape(want)


def reals_of(values: NDArray[np.generic], name: str) -> NDArray[np.float32]:
    """Values that must be finite, as float32."""
    found = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise ContainerError(f"tensor {name!r}: must be finite")
    return found


def run(container: Container, images: NDArray[np.floating] | NDArray[np.int8]) -> NDArray[np.int8]:
    """Run the integer graph of a container.

    Parameters
    ----------
    container : Container
        Open, with an integer graph.
    images : [B, ...] int8, or real numbers
        Real inputs of the original model are quantised first (:meth:`IntegerModel.quantize`).

    Returns
    -------
    [B, ...] int8
        Logits in steps of ``IntegerModel.scales[-1]``.

    Raises
    ------
    ContainerError
        If there is no integer graph, it is damaged, or the inputs have another shape.
    """
    model = read_integer(container)
    if images.dtype == np.int8:
        return model.run(images.view(np.int8))
    return model.run(model.quantize(images.astype(np.float32, copy=False)))


def store_integer(
    container: Container, model: IntegerModel, path: str | os.PathLike[str]
) -> FilePlan:
    """Write a copy of an open container with this integer graph, in place of any that it has.

    ``path`` may be the container's own: the file changes only when the new one is complete.

    Raises
    ------
    ContainerError
        If the container is damaged or the graph does not fit its layers.
    OutputError
        If the file cannot be written.
    """
    model.graph.check({entry.geometry.name: entry.geometry for entry in container.layers})
    kept = {n: container.kept(n) for n in container.kept_names if not is_integer_tensor(n)}
    kept |= _to_kept(model)
    return write_copy(container, path, kept)


def _to_kept(model: IntegerModel) -> dict[str, Kept]:
    arrays: dict[str, NDArray[np.generic]] = {
        GRAPH: np.frombuffer(model.graph.to_json().encode(), np.uint8),
        SCALES: model.scales,
    }
    first = f"{PREFIX}{model.graph.input.name}"
    arrays |= {f"{first}.gain": model.gain, f"{first}.offset": model.offset}
    for node in model.graph.nodes:
        p = model.parameters.get(node.name)
        for field in ("multiplier", "shift", "bias", "group_scale", "group_shift"):
            if p is not None and getattr(p, field).size:
                arrays[f"{PREFIX}{node.name}.{field}"] = getattr(p, field)
    return {name: Kept.from_numpy(array) for name, array in arrays.items()}
