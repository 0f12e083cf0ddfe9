"""Baselines: the weights of a container once more in another method."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vq.container import Container, Geometry, Layer
from vq.container.constants import GROUPED_BITS
from vq.container.grids import round_to_levels
from vq.container.order import to_matrix
from vq.errors import ConfigError, WeightError
from vq.integer import IntegerModel, to_fixed
from vq.integer.fixed import ACCUMULATOR_MAX
from vq.integer.golden import Parameters, reach
from vq.integer.store import products_of

__all__ = ["BASELINES", "GROUP", "baseline_layers", "require_baselines", "with_weights_of"]

#: Methods that a file or a workload can be compared with.
BASELINES = ("int8", "int4", "int3", "int2")
#: Inputs that share a scale in int4, int3 and int2, as in a recipe that does not say.
GROUP = 128


def require_baselines(methods: Sequence[str]) -> None:
    """Require that all methods are baselines.

    Raises
    ------
    ConfigError
    """
    for method in methods:
        if method not in BASELINES:
            raise ConfigError(f"methods must be of {', '.join(BASELINES)}, not {method!r}")


def baseline_layers(container: Container, method: str) -> list[Layer]:
    """Every layer of a container, of the same name and shape, in a method of ``BASELINES``.

    ``int8`` holds the decoded integers themselves, of layers with group scales the decoded weights
    rounded with a scale per output. ``int4``, ``int3`` and ``int2`` round the decoded weights to
    the nearest level, in groups of ``GROUP`` along the inputs.

    Raises
    ------
    WeightError
        If weights are too large for the fp16 scales of groups.
    """
    return [_baseline(container, entry.geometry, method) for entry in container.layers]


def _baseline(container: Container, g: Geometry, method: str) -> Layer:
    group = GROUP if method in GROUPED_BITS else 0
    if not group and not g.group:  # what was decoded is int8 already
        return Layer.int8(
            g.name,
            integers=container.integers(g.name),
            scale=container.scale(g.name),
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
        )
    scales = 0 if group else g.O
    made = Geometry(
        g.name, g.op, g.shape, method, tile_outputs=g.tile_outputs, scales=scales, group=group
    )
    weight = container.weight(g.name)
    matrix = to_matrix(weight.T if g.op == "linear_t" else weight, "in")
    try:
        return Layer.scalar(made, *round_to_levels(matrix, made))
    except WeightError as error:
        raise WeightError(f"{error}; leave {method} out of the methods") from None


def with_weights_of(model: IntegerModel, original: Container, other: Container) -> IntegerModel:
    """An integer graph with the weights that another container has for its layers.

    Multipliers, shifts, biases and scales of groups become those that turn the other sums into
    what the original ones were turned into, up to rounding; activations keep their scales.

    Parameters
    ----------
    model : IntegerModel
        Of ``original``.
    original, other : Container
        Of the same layers.

    Raises
    ------
    ConfigError
        If a node's numbers do not fit the hardware's.
    """
    parameters = {
        node.name: _exchanged(node.name, model.parameters[node.name], node.layer, original, other)
        if node.layer
        else model.parameters[node.name]
        for node in model.graph.nodes
        if node.name in model.parameters
    }
    return dataclasses.replace(model, parameters=parameters)


def _exchanged(
    node: str, p: Parameters, layer: str, original: Container, other: Container
) -> Parameters:
    _, before = products_of(original, layer)
    products, after = products_of(other, layer)
    # A step of the new sums in steps of the old ones. Where a bias outweighs all products by far,
    # it is raised until the bias fits, as where the graph was built.
    step = after / np.where(before == 0, after, before)
    room = ACCUMULATOR_MAX - reach(products)
    step = np.where(step < 0, -1.0, 1.0) * np.maximum(np.abs(step), np.abs(p.bias) / room)
    bias = np.clip(np.rint(p.bias / step), -room, room)
    try:
        multiplier, shift = to_fixed(np.ldexp(p.multiplier * step, -p.shift.astype(np.int64)))
    except ValueError as error:
        raise ConfigError(f"node {node!r} as {other.geometry(layer).method}: {error}") from None
    return dataclasses.replace(
        products, multiplier=multiplier, shift=shift, bias=bias.astype(np.int32)
    )
