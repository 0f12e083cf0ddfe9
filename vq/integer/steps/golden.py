"""The golden model of a graph of time steps: integers of the device, float32 of the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vq.container import Container, ContainerError
from vq.integer.fixed import to_fixed
from vq.integer.golden import IMAGES_AT_A_TIME, Parameters, apply_node, reach
from vq.integer.graph import Node
from vq.integer.numbers import with_numbers
from vq.integer.steps.graph import HostNode, StepGraph
from vq.integer.steps.host import HOST
from vq.integer.store import products_of

__all__ = ["LayerNumbers", "StepModel"]

F32 = NDArray[np.float32]
Value = NDArray[np.int8] | F32


@dataclass(frozen=True, eq=False)
class LayerNumbers:
    """What a layer has at all steps.

    Attributes
    ----------
    products : Parameters
        Weights, and the scales of their groups; no multipliers, shifts and biases.
    unit : [O] float32
        What one step of its sums is worth where one of its input is worth 1.
    bias : [O] float32
        Real.
    """

    products: Parameters
    unit: F32
    bias: F32

    @cached_property
    def most(self) -> NDArray[np.int64]:
        """What sums of products can reach, [O]."""
        return reach(self.products)

    @classmethod
    def of(cls, container: Container, layer: str, bias: F32) -> "LayerNumbers":
        """Those of a container's layer, with the bias that it does not hold."""
        products, scale = products_of(container, layer)
        return cls(products, np.broadcast_to(scale, len(bias)).astype(np.float32), bias)


@dataclass(frozen=True, eq=False)
class StepModel:
    """A graph of time steps with its numbers; see :func:`vq.integer.steps.read_steps`.

    Attributes
    ----------
    graph : StepGraph
    layers : mapping of node name to LayerNumbers
        Of ``linear`` and ``conv``.
    tensors : mapping of node name to mapping of field to float32
        Of nodes of the host that have some.
    scales : [times, nodes] float32
        Value of one step of every int8 output; 1 for others.
    """

    graph: StepGraph
    layers: Mapping[str, LayerNumbers]
    tensors: Mapping[str, Mapping[str, F32]]
    scales: F32

    def place_of(self, time: int) -> int:
        """Where a time step stands among those of the graph.

        Raises
        ------
        ContainerError
            If it does not; with the list of those that do.
        """
        if time not in self.graph.times:
            raise ContainerError(
                f"time step must be one that the integer graph has scales for, not {time}; they "
                f"are {', '.join(map(str, self.graph.times))}"
            )
        return self.graph.times.index(time)

    def scales_at(self, time: int) -> dict[str, np.float32]:
        """Value of one step of every node's output at a time step; see :meth:`place_of`."""
        row = self.scales[self.place_of(time)]
        return {node.name: row[i] for i, node in enumerate(self.graph.nodes)}

    def parameters(self, time: int) -> dict[str, Parameters]:
        """Multipliers, shifts and biases of all nodes of the device at a time step.

        They follow from scales in float64, by operations that are exact but for one rounding each,
        so that they are the same everywhere.

        Raises
        ------
        ContainerError
            See :meth:`place_of`; or if a node's scales do not fit each other.
        """
        scale = {name: float(own) for name, own in self.scales_at(time).items()}
        found = {}
        for node in self.graph.nodes:
            if not isinstance(node, Node):
                continue
            given = np.array([scale[name] for name in node.inputs])
            try:
                if node.op == "add":
                    own = to_fixed(given / scale[node.name], shared=True)
                    found[node.name] = Parameters(*own)
                else:
                    layer = self.layers[node.name]
                    unit = given[0] * layer.unit.astype(np.float64)
                    bias = layer.bias.astype(np.float64)
                    found[node.name] = with_numbers(
                        layer.products, layer.most, unit, bias, scale[node.name]
                    )
            except ValueError as error:
                raise ContainerError(
                    f"integer graph: node {node.name!r}: scales at time step {time} must fit each "
                    f"other: {error}"
                ) from None
        return found

    def with_weights_of(self, container: Container) -> "StepModel":
        """The same graph on the weights that another container has for its layers."""
        layers = {}
        for node in self.graph.nodes:
            if isinstance(node, Node) and node.layer:
                layers[node.name] = LayerNumbers.of(
                    container, node.layer, self.layers[node.name].bias
                )
        return replace(self, layers=layers)

    def run(self, inputs: F32, time: int, classes: NDArray[np.integer] | None = None) -> F32:
        """Output [B, ...] at a time step.

        Parameters
        ----------
        inputs : [B, ...] float32
        time : int
        classes : [B] integers, optional
            Where the graph has classes.

        Raises
        ------
        ContainerError
            If the step has no scales, inputs are of another shape or not finite, or classes are
            missing, too many or unknown.
        """
        self._check(inputs, classes)
        scales, last = self.scales_at(time), self.graph.nodes[-1]
        out = np.empty((len(inputs), *last.shape), np.float32)
        for start in range(0, len(inputs), IMAGES_AT_A_TIME):
            part = slice(start, start + IMAGES_AT_A_TIME)
            told = None if classes is None else classes[part]
            out[part] = _real(last.name, self.trace(inputs[part], time, told), scales)
        return out

    def trace(
        self, inputs: F32, time: int, classes: NDArray[np.integer] | None = None
    ) -> dict[str, Value]:
        """Output of every node by name; see :meth:`run`."""
        place = self.place_of(time)
        self._check(inputs, classes)
        parameters, scales = self.parameters(time), self.scales_at(time)
        values: dict[str, Value] = {}
        for node in self.graph.nodes:
            if isinstance(node, Node):
                given = [values[name].view(np.int8) for name in node.inputs]
                values[node.name] = apply_node(node, given, parameters[node.name])
            elif node.op == "input":
                values[node.name] = np.ascontiguousarray(inputs, np.float32)
            elif node.op == "table":
                values[node.name] = self._row(node, place, len(inputs), classes)
            else:
                real = [_real(name, values, scales) for name in node.inputs]
                values[node.name] = self._hosted(node, real, scales[node.name])
        return values

    def _hosted(self, node: HostNode, given: Sequence[F32], scale: np.float32) -> Value:
        if node.op == "quantize":
            codes = np.rint(given[0] / scale)
            rounded: NDArray[np.int8] = np.clip(codes, -128, 127).astype(np.int8)
            return rounded
        op, tensors = HOST[node.op], self.tensors.get(node.name, {})
        return np.ascontiguousarray(op.run(node.settings, given, tensors, node.shape), np.float32)

    def _row(
        self, node: HostNode, place: int, batch: int, classes: NDArray[np.integer] | None
    ) -> F32:
        rows = self.tensors[node.name]["rows"][place if node.settings["steps"] else 0]
        told = node.settings["classes"]
        assert classes is not None or not told
        found: F32 = rows[classes] if told else np.repeat(rows, batch, axis=0)
        return found

    def _check(self, inputs: F32, classes: NDArray[np.integer] | None) -> None:
        want = self.graph.nodes[0].shape
        if inputs.shape[1:] != want:
            raise ContainerError(
                f"integer graph: input must be [B, {', '.join(map(str, want))}], "
                f"not {list(inputs.shape)}"
            )
        if not np.isfinite(inputs).all():
            raise ContainerError("integer graph: input must be finite, not NaN or infinity")
        if not self.graph.classes:
            if classes is not None:
                raise ContainerError("integer graph: classes must be absent, as it knows none")
            return
        given = None if classes is None else list(classes.shape)
        if classes is None or given != [len(inputs)]:
            raise ContainerError(f"integer graph: classes must be [{len(inputs)}], not {given}")
        if ((classes < 0) | (classes >= self.graph.classes)).any():
            raise ContainerError(
                f"integer graph: classes must be 0 to {self.graph.classes - 1}, "
                f"not {classes.tolist()}"
            )


def _real(name: str, values: Mapping[str, Value], scales: Mapping[str, np.float32]) -> F32:
    """A value as the host reads it."""
    value = values[name]
    if value.dtype == np.int8:
        return value.astype(np.float32) * scales[name]
    return value.view(np.float32)
