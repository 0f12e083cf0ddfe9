"""A graph of time steps inside a container: kept tensors, as those of other integer graphs."""

import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vq.container import ConfigError, Container, ContainerError, FilePlan, Kept
from vq.container.copying import write_copy
from vq.integer.golden import Parameters
from vq.integer.steps.golden import LayerNumbers, StepModel
from vq.integer.steps.graph import HostNode, StepGraph, shared
from vq.integer.store import (
    GRAPH,
    PREFIX,
    SCALES,
    STEPS_VERSION,
    array_of,
    check_parameters,
    group_fields,
    is_integer_tensor,
    read_by,
    reals_of,
    version_of,
    weight_of_layer,
)

__all__ = ["has_steps", "read_steps", "require_steps_only", "store_steps"]

#: Parts of a model that a graph of time steps takes in: scales and tables of every step.
_TAKEN_IN = ("clock", "timed_rounding", "time_table")


def has_steps(container: Container) -> bool:
    """Whether a file holds an integer graph of time steps."""
    return version_of(container) == STEPS_VERSION


def require_steps_only(container: Container) -> None:
    """Refuse a file with parts at run time that a graph of time steps does not take in.

    Raises
    ------
    ConfigError
    """
    if kinds := dict.fromkeys(p.kind for p in container.runtime if p.kind not in _TAKEN_IN):
        raise ConfigError(
            f"{container.path}: an integer graph of time steps must be made of a file in which "
            f"nothing but scales and tables of steps remains at run time, not {', '.join(kinds)}"
        )


def read_steps(container: Container) -> StepModel:
    """Read and check the graph of time steps of an open container, weights included.

    What is returned cannot overflow at any of its steps.

    Raises
    ------
    ContainerError
        If there is none, or anything about it is wrong.
    ConfigError
        If other parts remain at run time.
    """
    require_steps_only(container)
    return read_by(container, _read)


def _read(container: Container) -> StepModel:
    kept = {n: container.kept(n) for n in container.kept_names if is_integer_tensor(n)}
    geometries = {entry.geometry.name: entry.geometry for entry in container.layers}
    graph = StepGraph.from_json(array_of(kept, GRAPH, "U8").tobytes(), geometries)
    wanted = {GRAPH, SCALES}
    layers, tensors = {}, {}
    for node in graph.nodes:
        prefix = f"{PREFIX}{node.name}."
        if isinstance(node, HostNode):
            fields, names = graph.tensors(node), shared(node)
            wanted |= {prefix + field for field in fields.keys() - names.keys()}
            held = kept | {n: container.kept(n) for n in names.values() if _has(container, n)}
            if fields:
                tensors[node.name] = {
                    f: _floats(held, names.get(f, prefix + f), s) for f, s in fields.items()
                }
        elif node.layer:
            g = geometries[node.layer]
            own = {"unit": ("F32", (g.O,)), "bias": ("F32", (g.O,)), **group_fields(g)}
            wanted |= {prefix + field for field in own}
            found = {f: array_of(kept, prefix + f, *own[f]) for f in group_fields(g)}
            products = Parameters(
                np.empty(0, np.int16), np.empty(0, np.uint8),
                weight=weight_of_layer(container, node.layer), group=g.group,
                group_scale=found.get("group_scale", np.empty(0)).astype(np.int16),
                group_shift=found.get("group_shift", np.empty(0)).astype(np.uint8),
            )  # fmt: skip
            # With room for a bias of one, what follows from scales is in range at every step.
            check_parameters(node, replace(products, bias=np.ones(g.O, np.int32)))
            unit, bias = (_floats(kept, prefix + f, (g.O,)) for f in ("unit", "bias"))
            layers[node.name] = LayerNumbers(products, unit, bias)
    for name in sorted(kept.keys() - wanted):
        raise ContainerError(f"tensor {name!r}: must belong to a node of the integer graph")
    scales = _floats(kept, SCALES, (len(graph.times), len(graph.nodes)))
    if not (scales > 0).all():
        raise ContainerError(f"tensor {SCALES!r}: must be positive")
    model = StepModel(graph, layers, tensors, scales)
    for time in graph.times:
        model.parameters(time)
    return model


def _has(container: Container, name: str) -> bool:
    """Whether the model has a tensor that a node may share."""
    return name in container.kept_names and container.is_own(name)


def _floats(kept: Mapping[str, Kept], name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return reals_of(array_of(kept, name, "F32", shape), name)


def store_steps(container: Container, model: StepModel, path: str | os.PathLike[str]) -> FilePlan:
    """Write a copy of an open container with this graph, in place of any that it has.

    ``path`` may be the container's own: the file changes only when the new one is complete.

    Raises
    ------
    ContainerError
        If the container is damaged or the graph does not fit its layers.
    ConfigError
        See :func:`require_steps_only`.
    OutputError
        If the file cannot be written.
    """
    require_steps_only(container)
    model.graph.check({entry.geometry.name: entry.geometry for entry in container.layers})
    kept = {n: container.kept(n) for n in container.kept_names if not is_integer_tensor(n)}
    kept |= _to_kept(model)
    return write_copy(container, path, kept)


def _to_kept(model: StepModel) -> dict[str, Kept]:
    arrays: dict[str, NDArray[np.generic]] = {
        GRAPH: np.frombuffer(model.graph.to_json().encode(), np.uint8),
        SCALES: model.scales,
    }
    for node in model.graph.nodes:
        prefix = f"{PREFIX}{node.name}."
        names = shared(node) if isinstance(node, HostNode) else {}
        own = model.tensors.get(node.name, {}).items()
        arrays |= {prefix + f: tensor for f, tensor in own if f not in names}
        if (layer := model.layers.get(node.name)) is not None:
            arrays |= {prefix + "unit": layer.unit, prefix + "bias": layer.bias}
            if layer.products.group:
                arrays[prefix + "group_scale"] = layer.products.group_scale
                arrays[prefix + "group_shift"] = layer.products.group_shift
    return {name: Kept.from_numpy(array) for name, array in arrays.items()}
