"""Layers of a container: shapes of trained weights."""

import math
import os
from typing import Any

from hwsim.workloads.layer import INPUT, WorkloadLayer
from hwsim.workloads.network import Workload
from vq.container import ConfigError, Geometry, open_container
from vq.integer import Graph, Node, is_integer_tensor, read_integer

__all__ = ["workload_of_container"]


def workload_of_container(path: str | os.PathLike[str], rows: int | None = None) -> Workload:
    """List the layers of a container.

    A file with an integer graph gives its nodes, with their windows and sizes. Of any other file,
    or if ``rows`` is given, every layer's matrix multiplies that many rows (default 1), as
    ``signbook simulate`` runs it: a convolution has as many windows that do not overlap, and an
    embedding is a linear.

    Raises
    ------
    ConfigError
        If ``rows`` is below 1.
    ContainerError
        If the file is damaged.
    """
    if rows is not None and rows < 1:
        raise ConfigError(f"rows must be at least 1, not {rows}")
    with open_container(path) as container:
        geometries = [entry.geometry for entry in container.layers]
        if rows is None and any(is_integer_tensor(n) for n in container.kept_names):
            layers = _Nodes(geometries).layers(read_integer(container).graph)
        else:
            layers = [_alone(geometry, rows or 1) for geometry in geometries]
        file = container.path.name
    name = file.removesuffix(".safetensors").removesuffix(".vq")
    return Workload(name, tuple(layers), trained=True, source=f"container {file}")


def _alone(g: Geometry, rows: int) -> WorkloadLayer:
    if not g.op.startswith("conv"):
        note = "an embedding, taken as a linear" if g.op == "embedding" else ""
        return WorkloadLayer(g.name, "linear", g.I, g.O, rows=rows, note=note)
    kernel = _pair(g.shape[2:], 1)
    return WorkloadLayer(
        g.name, g.op, g.shape[1], g.O, height=rows * kernel[0], width=kernel[1], kernel=kernel,
        stride=kernel, note="windows that do not overlap, one for each row",
    )  # fmt: skip


class _Nodes:
    """Walks an integer graph once."""

    def __init__(self, geometries: list[Geometry]) -> None:
        self._geometries = {g.name: g for g in geometries}
        #: Layer that gives a node's value; that of its input for a flattening.
        self._given: dict[str, str] = {}
        #: Node that used a stored layer first.
        self._first: dict[str, str] = {}
        #: Nodes whose value is [..., C], and not [C, H, W] or [C, L].
        self._rows: set[str] = set()

    def layers(self, graph: Graph) -> list[WorkloadLayer]:
        shapes = {node.name: node.shape for node in graph.nodes}
        readers = [n for n in graph.nodes if graph.input.name in n.inputs]
        if readers and readers[0].op == "linear":
            self._rows.add(graph.input.name)
        self._given[graph.input.name] = INPUT
        layers = []
        for node in graph.nodes[1:]:
            sources = tuple(self._given[name] for name in node.inputs)
            if node.op == "flatten":
                self._given[node.name] = sources[0]
                continue
            layers.append(self._layer(node, shapes[node.inputs[0]], sources))
            self._given[node.name] = node.name
        return layers

    def _layer(self, node: Node, shape: tuple[int, ...], sources: tuple[str, ...]) -> WorkloadLayer:
        g = self._geometries.get(node.layer)
        if node.op == "linear" or node.inputs[0] in self._rows:
            self._rows.add(node.name)
            fields: dict[str, Any] = {"rows": math.prod(shape[:-1])}
            channels = shape[-1], node.shape[-1]
        else:
            height, width = (*shape[1:], 1, 1)[:2]
            fields = {"height": height, "width": width}
            channels = shape[0], node.shape[0]
        op = {"conv": g.op if g else "", "global_avgpool": "avgpool", "relu": "activation"}.get(
            node.op, node.op
        )
        if node.op in ("conv", "maxpool"):
            padding = (*node.padding, (0, 0))[:2]
            kernel = g.shape[2:] if g else node.kernel
            fields |= {"padding": padding, "kernel": _pair(kernel, 1)}
            fields |= {"dilation": _pair(node.dilation, 1), "groups": node.groups}
        if node.op in ("conv", "maxpool", "shortcut"):
            fields["stride"] = _pair(node.stride, 1)
        if op == "avgpool":
            fields["kernel"] = height, width
        first = self._first.setdefault(node.layer, node.name) if g else ""
        shares = "" if first == node.name else first
        return WorkloadLayer(node.name, op, *channels, shares=shares, sources=sources, **fields)


def _pair(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    vertical, horizontal = (*values, missing, missing)[:2]
    return vertical, horizontal
