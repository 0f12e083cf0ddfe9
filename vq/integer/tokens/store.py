"""A transformer's graph inside a container: kept tensors, as those of other integer graphs."""

import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vq.container import Container, ContainerError, FilePlan, Geometry, Kept
from vq.container.copying import write_copy
from vq.integer.fixed import ACCUMULATOR_MAX, MULTIPLIER_MAX, SHIFT_MAX
from vq.integer.golden import Parameters, reach
from vq.integer.graph import Node
from vq.integer.groups import partial_reach
from vq.integer.store import (
    GRAPH,
    PREFIX,
    SCALES,
    TOKENS_VERSION,
    array_of,
    check_parameters,
    group_fields,
    is_integer_tensor,
    read_by,
    reals_of,
    version_of,
    weight_of_layer,
)
from vq.integer.tokens.arithmetic import WIDE_MAX
from vq.integer.tokens.golden import TokenModel
from vq.integer.tokens.graph import Tensors, TokenGraph, TokenNode, form_of, tensors_of

__all__ = ["NORM_REACH", "check_numbers", "check_weights", "has_tokens", "most_of", "read_tokens",
           "store_tokens"]  # fmt: skip

#: What a row over its deviation does not exceed: 2**18 times the root of 2**15 channels, rounded.
NORM_REACH = 2**26
_EMPTY = np.empty(0, np.int8)
_REAL = ("gain", "offset")


def has_tokens(container: Container) -> bool:
    """Whether a file holds the integer graph of a transformer."""
    return version_of(container) == TOKENS_VERSION


def read_tokens(container: Container) -> TokenModel:
    """Read and check the graph of tokens of an open container, weights included.

    What is returned cannot overflow.

    Raises
    ------
    ContainerError
        If there is none, or anything about it is wrong.
    ConfigError
        If parts of the model remain at run time.
    """
    container.require_plain("an integer graph")
    return read_by(container, _read)


def _read(container: Container) -> TokenModel:
    kept = {n: container.kept(n) for n in container.kept_names if is_integer_tensor(n)}
    layers = {entry.geometry.name: entry.geometry for entry in container.layers}
    graph = TokenGraph.from_json(array_of(kept, GRAPH, "U8").tobytes(), layers)
    fields = _fields(graph, layers)
    wanted = {f"{PREFIX}{name}.{field}" for name, own in fields.items() for field in own}
    for name in sorted(kept.keys() - wanted - {GRAPH, SCALES}):
        raise ContainerError(f"tensor {name!r}: must belong to a node of the integer graph")
    found = {
        name: {f: array_of(kept, f"{PREFIX}{name}.{f}", *own[f]) for f in own}
        for name, own in fields.items()
    }
    first = graph.input.name
    reals = {
        f: reals_of(found[first].pop(f), f"{PREFIX}{first}.{f}")
        for f in _REAL
        if f in fields[first]
    }
    numbers = {
        name: {f: values.astype(values.dtype.newbyteorder("=")) for f, values in own.items()}
        for name, own in found.items()
    }
    weights = _weights(container, graph, layers, numbers)
    scales = reals_of(array_of(kept, SCALES, "F32", (len(graph.nodes),)), SCALES)
    if not (scales > 0).all():
        raise ContainerError(f"tensor {SCALES!r}: must be positive")
    embeddings = {node.name for node in graph.nodes if node.op == "embedding"}
    left = {
        name: own
        for name, own in numbers.items()
        if own and (name not in weights or name in embeddings)
    }
    model = TokenModel(graph, weights, left, scales, **reals)
    _check(model)
    return model


def _fields(graph: TokenGraph, layers: Mapping[str, Geometry]) -> dict[str, Tensors]:
    """Tensors of every node, their dtypes and shapes."""
    known = {node.name: node for node in graph.nodes}
    found = {}
    for node in graph.nodes:
        g = layers.get(node.layer)
        own: Tensors = {}
        if isinstance(node, TokenNode):
            own = tensors_of(node, [known[name] for name in node.inputs], g)
        elif node.op == "input":
            own = dict.fromkeys(_REAL, ("F32", node.shape[:1]))
        elif g is not None:
            own = {"multiplier": ("I16", (g.O,)), "shift": ("U8", (g.O,)), "bias": ("I32", (g.O,))}
        if g is not None and node.op in ("linear", "conv"):
            own |= group_fields(g)
        found[node.name] = own
    return found


def _weights(
    container: Container,
    graph: TokenGraph,
    layers: Mapping[str, Geometry],
    numbers: Mapping[str, Mapping[str, NDArray[np.generic]]],
) -> dict[str, Parameters]:
    found = {}
    for node in graph.nodes:
        own, g = numbers[node.name], layers.get(node.layer)
        if node.op not in ("linear", "conv", "embedding") or (node.op == "embedding" and not g):
            continue
        if g is not None:
            weight = weight_of_layer(container, node.layer)
        else:
            assert isinstance(node, TokenNode)
            weight = numbers[node.settings["table"]]["weight"].view(np.int8)
        found[node.name] = Parameters(
            own["multiplier"].astype(np.int16),
            own["shift"].astype(np.uint8),
            own.get("bias", np.empty(0)).astype(np.int32),
            weight,
            g.group if g else 0,
            own.get("group_scale", np.empty(0)).astype(np.int16),
            own.get("group_shift", np.empty(0)).astype(np.uint8),
        )
    return found


def most_of(form: str) -> int:
    """What a linear's inputs of a form do not exceed, a multiple of 128."""
    return 2**15 if form == "int16" else 128


def _check(model: TokenModel) -> None:
    known = {node.name: node for node in model.graph.nodes}
    for node in model.graph.nodes:
        p = model.weights.get(node.name)
        if p is not None and isinstance(node, Node):
            check_parameters(node, p)
        elif p is not None and isinstance(node, TokenNode):
            check_weights(node, p, form_of(known[node.inputs[0]]))
        if isinstance(node, TokenNode) and (own := model.numbers.get(node.name)) is not None:
            check_numbers(node, own)


def check_weights(node: TokenNode, p: Parameters, form: str) -> None:
    """Require of a linear what hardware has, and accumulators that cannot overflow.

    Raises
    ------
    ContainerError
    """
    # What holds for the magnitudes of int8 is asked of weights that are so much larger.
    check_parameters(Node(node.name, node.op, (), node.shape), replace(p, weight=_EMPTY, group=0))
    where = f"integer graph: node {node.name!r}"
    if node.op == "embedding":
        if p.group:
            raise ContainerError(f"{where}: layer must be an embedding without groups")
        return
    if p.group:
        check_parameters(Node(node.name, "linear", (), node.shape), p)
        partial = partial_reach(p.weight, p.group) * (most_of(form) // 128)
        if (partial > ACCUMULATOR_MAX).any():
            raise ContainerError(
                f"{where}: sum of a group must fit int32, but can reach {int(partial.max())}"
            )
    most = reach(p, most_of(form)) + np.abs(p.bias.astype(np.int64))
    if (most > ACCUMULATOR_MAX).any():
        raise ContainerError(
            f"{where}: accumulator of output {int(most.argmax())} must fit int32, "
            f"but can reach {int(most.max())}"
        )


def check_numbers(node: TokenNode, own: Mapping[str, NDArray[np.integer]]) -> None:
    """Require ranges that hardware has of the numbers of a node without weights.

    Raises
    ------
    ContainerError
    """

    def need(field: str, low: int, high: int) -> None:
        if field in own and own[field].size:
            least, most = int(own[field].min()), int(own[field].max())
            if least < low or most > high:
                raise ContainerError(
                    f"integer graph: node {node.name!r}: {field} must be {low} to {high}, "
                    f"not {least} to {most}"
                )

    need("multiplier", -MULTIPLIER_MAX, MULTIPLIER_MAX)
    need("shift", 1, SHIFT_MAX)
    need("bias", NORM_REACH - ACCUMULATOR_MAX, ACCUMULATOR_MAX - NORM_REACH)
    need("epsilon", 1, 2**60)
    for field in ("rows", "entries"):
        if field in own and own[field].dtype == np.int16:
            need(field, -WIDE_MAX, WIDE_MAX)
    for field in ("cosine", "sine"):
        need(field, -(2**15) + 1, 2**15 - 1)
    if node.op == "attention" and int(own["multiplier"][1]) < 0:
        raise ContainerError(
            f"integer graph: node {node.name!r}: multiplier of scores must be 0 or more"
        )


def store_tokens(container: Container, model: TokenModel, path: str | os.PathLike[str]) -> FilePlan:
    """Write a copy of an open container with this graph, in place of any that it has.

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
    kept |= _to_kept(model, container)
    return write_copy(container, path, kept)


def _to_kept(model: TokenModel, container: Container) -> dict[str, Kept]:
    arrays: dict[str, NDArray[np.generic]] = {
        GRAPH: np.frombuffer(model.graph.to_json().encode(), np.uint8),
        SCALES: model.scales,
    }
    layers = {entry.geometry.name: entry.geometry for entry in container.layers}
    for name, own in _fields(model.graph, layers).items():
        for field in own:
            if field in _REAL:
                values: NDArray[np.generic] = getattr(model, field)
            elif name in model.numbers:
                values = model.numbers[name][field]
            else:
                values = getattr(model.weights[name], field)
            arrays[f"{PREFIX}{name}.{field}"] = values
    return {name: Kept.from_numpy(array) for name, array in arrays.items()}
