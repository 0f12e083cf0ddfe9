"""Baselines: the weights of a container once more in another method."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vq.container import Container, Geometry, Layer
from vq.container.order import to_matrix
from vq.errors import ConfigError, WeightError
from vq.integer import IntegerModel, to_fixed
from vq.integer.fixed import ACCUMULATOR_MAX
from vq.integer.golden import Parameters, reach
from vq.integer.groups import partial_reach, to_groups
from vq.integer.store import weight_of_layer

__all__ = ["BASELINES", "GROUP", "baseline_layers", "require_baselines", "with_weights_of"]

#: Methods that a file or a workload can be compared with.
BASELINES = ("int8", "int4", "int3", "int2")
#: Inputs that share a scale in int4, int3 and int2, as in a recipe that does not say.
GROUP = 128

_CODE_MAX = 127
_SCALE_MIN = 2.0**-24  # least positive fp16
_FP16_MAX = 65504.0


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
    make = _as_int8 if method == "int8" else _rounded
    return [make(container, entry.geometry, method) for entry in container.layers]


def _as_int8(container: Container, g: Geometry, method: str) -> Layer:
    if g.group:
        matrix = _matrix(container, g)
        peak = np.abs(matrix).max(axis=1)
        scale = np.where(peak > 0, peak / np.float32(_CODE_MAX), np.float32(1))
        integers = np.rint(matrix / scale[:, None]).astype(np.int8)
    else:
        integers = container.integers(g.name)
        scale = container.scale(g.name) if g.scales else np.ones(1, np.float32)
    return Layer.int8(
        g.name,
        integers=integers,
        scale=scale,
        shape=g.shape,
        op=g.op,
        tile_outputs=g.tile_outputs,
    )


def _matrix(container: Container, g: Geometry) -> NDArray[np.float32]:
    """Decoded weight, [O, I]."""
    weight = container.weight(g.name)
    return to_matrix(weight.T if g.op == "linear_t" else weight, "in")


def _rounded(container: Container, g: Geometry, method: str) -> Layer:
    """What :class:`vq.formats.settings.Int4` and its like make of the decoded weight."""
    matrix = _matrix(container, g)
    bits = int(method.removeprefix("int"))
    half = np.float32((1 << bits) - 1) / 2
    width = min(GROUP, g.I)
    padded = np.pad(np.abs(matrix), ((0, 0), (0, -g.I % width)))
    exact = padded.reshape(g.O, -1, width).max(axis=2) / half
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        scale = np.where(exact == 0, 1, np.maximum(exact, _SCALE_MIN)).astype(np.float16)
    if not np.isfinite(scale).all():
        raise WeightError(
            f"layer {g.name!r}: weights must be at most {_FP16_MAX * half:g} for the fp16 scales "
            f"of {method}, not {float(np.abs(matrix).max()):g}; leave {method} out of the methods"
        )
    level = np.repeat(scale.astype(np.float32), width, axis=1)[:, : g.I]
    zero = 1 << (bits - 1)
    codes = np.clip(np.rint(matrix / level) + zero, 0, (1 << bits) - 1)
    return Layer.grouped(
        g.name,
        method=method,
        codes=codes.astype(np.uint8),
        group_scales=scale,
        group_zeros=None,
        group=GROUP,
        shape=g.shape,
        op=g.op,
        tile_outputs=g.tile_outputs,
    )


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
    _, before = _products(original, layer)
    products, after = _products(other, layer)
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


def _products(container: Container, layer: str) -> tuple[Parameters, NDArray[np.float64]]:
    """Weights of a layer with the scales of their groups, and the scale [1] or [O] of its sums."""
    g, weight = container.geometry(layer), weight_of_layer(container, layer)
    p = Parameters(np.empty(0, np.int16), np.empty(0, np.uint8), weight=weight)
    if not g.group:
        return p, container.scale(layer).astype(np.float64)
    partial = partial_reach(weight, g.group)
    scales, shift, unit = to_groups(container.group_scales(layer).astype(np.float64), partial)
    grouped = dataclasses.replace(
        p, group=g.group, group_scale=scales, group_shift=np.array([shift], np.uint8)
    )
    return grouped, unit
