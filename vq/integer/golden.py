"""The golden model: an integer graph in numpy, exact to the last bit.

Sums of products are computed in floating point where every partial sum is a whole number that
the type represents exactly (below 2**24 in float32, else below 2**53 in float64), so that the
fast matrix product gives the integers that hardware gives, in any order of summation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vq.container import ContainerError
from vq.integer import groups
from vq.integer.fixed import requantize
from vq.integer.graph import Graph, Node

__all__ = ["IMAGES_AT_A_TIME", "IntegerModel", "Parameters", "accumulated", "apply_node", "reach"]

I8 = NDArray[np.int8]
_FLOAT32_EXACT = 2**24
#: As many columns of convolutions are in memory at once.
IMAGES_AT_A_TIME = 16


@dataclass(frozen=True, eq=False)
class Parameters:
    """Numbers of one node that requantises.

    Attributes
    ----------
    multiplier, shift : int16 and uint8
        [O] for ``linear`` and ``conv``, [1] for ``global_avgpool``; for ``add`` [2], one for each
        input, and [1].
    bias : [O] int32
        Added to the accumulator; empty but for ``linear`` and ``conv``.
    weight : int8
        [O, I] for ``linear``, ``[O, C, *taps]`` for ``conv``, else empty.
    group : int
        Inputs that share a group scale, where the layer has groups; else 0.
    group_scale : [O, groups] int16
        What the sum of each group is multiplied by; else empty.
    group_shift : [1] uint8
        And how far it is shifted then (:mod:`vq.integer.groups`); else empty.
    """

    multiplier: NDArray[np.int16]
    shift: NDArray[np.uint8]
    bias: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    weight: I8 = field(default_factory=lambda: np.empty(0, np.int8))
    group: int = 0
    group_scale: NDArray[np.int16] = field(default_factory=lambda: np.empty(0, np.int16))
    group_shift: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """An integer graph with its numbers; see :func:`vq.integer.read_integer`.

    Attributes
    ----------
    graph : Graph
    parameters : mapping of node name to Parameters
    gain, offset : [C] float32
        How the first axis of a real input becomes int8: see :meth:`quantize`.
    scales : [nodes] float32
        Value of one step of every node's output, in the order of the graph.
    """

    graph: Graph
    parameters: Mapping[str, Parameters]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    scales: NDArray[np.float32]

    def quantize(self, values: NDArray[np.floating]) -> I8:
        """Real inputs [B, C, ...] to int8: ``clamp(rint(gain * x + offset))``.

        Float32, product and sum rounded one after the other, ties to even: the only step that is
        not integer arithmetic, done by the host.

        Raises
        ------
        ContainerError
            If the shape is another one, or a value is not finite.
        """
        self._check_input(values)
        column = (-1, *[1] * (values.ndim - 2))
        x = values.astype(np.float32, copy=False) * self.gain.reshape(column)
        x = np.rint(x + self.offset.reshape(column))
        if not np.isfinite(x).all():
            raise ContainerError("integer graph: input must be finite, not NaN or infinity")
        codes: I8 = np.clip(x, -128, 127).astype(np.int8)
        return codes

    def dequantize(self, outputs: I8) -> NDArray[np.float32]:
        """Int8 outputs as real numbers: times the last scale."""
        values: NDArray[np.float32] = outputs.astype(np.float32) * self.scales[-1]
        return values

    def run(self, inputs: I8) -> I8:
        """Outputs ``[B, *shape]`` int8 for int8 inputs ``[B, *shape]``."""
        self._check_input(inputs)
        parts = [inputs[i : i + IMAGES_AT_A_TIME] for i in range(0, len(inputs), IMAGES_AT_A_TIME)]
        out = np.empty((len(inputs), *self.graph.output.shape), np.int8)
        for i, part in enumerate(parts):
            for _, value in self._steps(part):
                last = value
            out[i * IMAGES_AT_A_TIME : i * IMAGES_AT_A_TIME + len(part)] = last
        return out

    def trace(self, inputs: I8) -> dict[str, I8]:
        """Output of every node by name, for comparing hardware node by node."""
        self._check_input(inputs)
        return dict(self._steps(inputs))

    def _check_input(self, values: NDArray[np.generic]) -> None:
        want = self.graph.input.shape
        if values.shape[1:] != want:
            raise ContainerError(
                f"integer graph: input must be [B, {', '.join(map(str, want))}], "
                f"not {list(values.shape)}"
            )

    def _steps(self, inputs: I8) -> Iterator[tuple[str, I8]]:
        """Run node after node; a value is dropped after its last use."""
        last_use = {name: node.name for node in self.graph.nodes for name in node.inputs}
        alive: dict[str, I8] = {}
        for node in self.graph.nodes:
            given = [alive[name] for name in node.inputs]
            p = self.parameters.get(node.name)
            value = inputs if node.op == "input" else apply_node(node, given, p)
            alive = {n: v for n, v in alive.items() if last_use[n] != node.name}
            if node.name in last_use:
                alive[node.name] = value
            yield node.name, value


def apply_node(node: Node, given: Sequence[I8], p: Parameters | None) -> I8:
    """Output [B, *shape] of a node for its inputs; without parameters where it has none."""
    x = given[0]
    if node.op == "relu":
        return np.maximum(x, np.int8(0))
    if node.op == "flatten":
        return x.reshape(len(x), -1)
    if node.op == "shortcut":
        return _shortcut(node, x)
    if node.op == "maxpool":
        windows = _windows(node, _pad(x, node, -128), node.kernel)
        axes = tuple(range(x.ndim, windows.ndim))
        return np.ascontiguousarray(windows.max(axis=axes))
    assert p is not None
    if node.op == "add":
        first, second = (v.astype(np.int64) for v in given)
        total = first * int(p.multiplier[0]) + second * int(p.multiplier[1])
        return requantize(total, np.ones(1, np.int16), p.shift, relu=node.relu)
    if node.op == "global_avgpool":
        total = x.reshape(*x.shape[:2], -1).sum(axis=2, dtype=np.int64)
        mean = requantize(total, p.multiplier, p.shift, relu=node.relu)
        return mean.reshape(len(x), *node.shape)
    if node.op == "linear":
        rows = x.reshape(1, -1, x.shape[-1]).swapaxes(1, 2)
        y = np.ascontiguousarray(_product(rows, p, node).T)
        outputs: I8 = y.reshape(*x.shape[:-1], -1)
        return outputs
    columns, positions = _columns(node, x, p.weight.shape[2:])
    y = _product(columns, p, node).reshape(-1, len(x), *positions)
    return np.ascontiguousarray(y.swapaxes(0, 1))


def reach(p: Parameters, most: int = 128) -> NDArray[np.int64]:
    """Largest magnitude that the accumulator of each output can have without bias, [O] int64.

    Inputs are of magnitude at most ``most``, a multiple of 128.
    """
    if p.group:
        partial = groups.partial_reach(p.weight, p.group) * (most // 128)
        return groups.reach(p.group_scale, int(p.group_shift[0]), partial)
    flat = np.abs(p.weight.reshape(len(p.weight), -1).astype(np.int64))
    found: NDArray[np.int64] = most * flat.sum(axis=1)
    return found


def _product(columns: I8, p: Parameters, node: Node) -> I8:
    """Requantised products: weights [O, I] and columns [G, I, P] give [O, P]."""
    accumulator = accumulated(columns, p, node.groups)
    accumulator += p.bias[:, None]
    return requantize(accumulator, p.multiplier[:, None], p.shift[:, None], relu=node.relu)


def accumulated(
    columns: NDArray[np.integer], p: Parameters, parts: int = 1, *, most: int = 128
) -> NDArray[np.int64]:
    """Sums of products, brought to one size where the layer has groups, without bias.

    Parameters
    ----------
    columns : [G, I, P] integers of magnitude at most ``most``
    p : Parameters
        With weights [O, I] or [O, I / taps, *taps].
    parts : int
        Groups of channels G.

    Returns
    -------
    [O, P]
    """
    weight = p.weight.reshape(parts, len(p.weight) // parts, -1)
    if not p.group:
        return _sums(weight, columns, most)
    accumulator = np.zeros((len(p.weight), columns.shape[2]), np.int64)
    shift = int(p.group_shift[0])
    for at, inputs in enumerate(groups.inputs_of_groups(p.weight.shape, p.group)):
        partial = _sums(weight[:, :, inputs], columns[:, inputs], most)
        accumulator += groups.rescale(partial, p.group_scale[:, at, None], shift)
    return accumulator


def _sums(weight: I8, columns: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Exact products: weights [G, O / G, I] and columns [G, I, P] give [O, P]."""
    most = most * int(np.abs(weight.astype(np.int16)).sum(axis=2, dtype=np.int64).max())
    kind = np.float32 if most <= _FLOAT32_EXACT else np.float64
    product = weight.astype(kind) @ columns.astype(kind)  # [G, O / G, P]
    sums: NDArray[np.int64] = product.reshape(-1, product.shape[2]).astype(np.int64)
    return sums


def _columns(node: Node, x: I8, kernel: tuple[int, ...]) -> tuple[I8, tuple[int, ...]]:
    """What every position of a convolution sees: [G, C / G * taps, B * P], and the positions."""
    windows = _windows(node, _pad(x, node, 0), kernel)  # [B, C, *positions, *taps]
    positions = windows.shape[2 : 2 + len(kernel)]
    columns = np.empty((x.shape[1], math.prod(kernel), len(x), *positions), np.int8)
    for place, tap in enumerate(np.ndindex(*kernel)):
        columns[:, place] = windows[(..., *tap)].swapaxes(0, 1)
    inputs = columns.shape[0] // node.groups * columns.shape[1]
    return columns.reshape(node.groups, inputs, len(x) * math.prod(positions)), positions


def _pad(x: I8, node: Node, value: int) -> I8:
    widths = ((0, 0), (0, 0), *node.padding)
    return np.pad(x, widths, constant_values=value) if any(map(any, node.padding)) else x


def _windows(node: Node, x: I8, kernel: tuple[int, ...]) -> I8:
    """Windows of a padded input, [B, C, *positions, *taps]; a view."""
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, node.dilation, strict=True))
    windows = sliding_window_view(x, extent, axis=tuple(range(2, x.ndim)))
    strides = (slice(None, None, s) for s in node.stride)
    taps = (slice(None, None, d) for d in node.dilation)
    return windows[(slice(None), slice(None), *strides, *taps)]


def _shortcut(node: Node, x: I8) -> I8:
    """Every ``stride``-th position, and zero channels on both sides."""
    every = tuple(slice(None, None, s) for s in node.stride)
    before = node.channels[0]
    out = np.zeros((len(x), *node.shape), np.int8)
    out[:, before : before + x.shape[1]] = x[(slice(None), slice(None), *every)]
    return out
