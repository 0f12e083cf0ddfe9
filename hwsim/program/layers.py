"""Layers alone: each one times random rows of activations, for files without an integer graph."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsim.program.step import Numbers, Step, Tensor
from vq.container import Container, LayerEntry
from vq.integer import requantize
from vq.integer.groups import inputs_of_groups, rescale

__all__ = ["LayerWork", "steps_of_layers", "work_of_layers"]

_SPREAD = 40  # standard deviation of the outputs
_SCALE_MAX = 32767


@dataclass(frozen=True, eq=False)
class LayerWork:
    """One layer as a linear of some rows: its step, its input, and what must come out.

    ``inputs`` is [rows, I] int8, ``outputs`` [rows, O].
    """

    step: Step
    inputs: NDArray[np.int8]
    outputs: NDArray[np.int8]


def work_of_layers(
    container: Container,
    rows: int,
    entries: Sequence[LayerEntry] | None = None,
    seed: int = 0,
) -> list[LayerWork]:
    """Rows of random int8 through each layer's matrix [O, I], independent of each other.

    A convolution is taken as the product with its matrix: the same weights, the same stream.
    Multipliers bring the outputs to a spread of some tens; numbers depend on the layer's name and
    the seed only, so that files with the same integers get the same outputs.
    """
    entries = container.layers if entries is None else entries
    return [_work(container, entry, rows, seed) for entry in entries]


def steps_of_layers(container: Container, rows: int) -> list[Step]:
    """The steps of :func:`work_of_layers`, without data: nothing is decoded or multiplied.

    Their numbers are neutral, and as many. Cycles do not depend on them.
    """
    steps = []
    for entry in container.layers:
        g = entry.geometry
        numbers = Numbers.same(g.O)
        if g.group:
            groups = len(inputs_of_groups((g.O, g.I), g.group))
            numbers = replace(numbers, group_scale=np.ones((g.O, groups), np.int16))
        steps.append(_step(entry, rows, numbers))
    return steps


def _step(entry: LayerEntry, rows: int, numbers: Numbers) -> Step:
    g = entry.geometry
    source = Tensor(f"{g.name}.input", g.I, rows, channels_first=False)
    target = Tensor(g.name, g.O, rows, channels_first=False)
    return Step(g.name, source, target, numbers, entry=entry)


def _work(container: Container, entry: LayerEntry, rows: int, seed: int) -> LayerWork:
    g = entry.geometry
    weight = container.integers(g.name)
    rng = np.random.default_rng([seed, zlib.crc32(g.name.encode())])
    x = rng.integers(-128, 128, (rows, g.I)).astype(np.int8)
    bias = rng.integers(-1000, 1000, g.O).astype(np.int32)
    scale, scale_shift = np.empty((0, 0), np.int16), 0
    if g.group:
        groups = inputs_of_groups((g.O, g.I), g.group)
        scale = rng.integers(1, _SCALE_MAX, (g.O, len(groups))).astype(np.int16)
        scale_shift = 12
        sums = np.zeros((rows, g.O), np.int64)
        for number, columns in enumerate(groups):
            partial = _product(x[:, columns], weight[:, columns])
            sums += rescale(partial, scale[:, number], scale_shift)
    else:
        sums = _product(x, weight)
    sums = sums + bias
    target = max(1.0, float(sums.std())) / _SPREAD
    shift = min(47, max(1, 14 + math.floor(math.log2(target))))
    multiplier = np.full(g.O, max(1, round(2.0**shift / target)), np.int16)
    numbers = Numbers(bias, multiplier, np.full(g.O, shift, np.uint8), scale, scale_shift)
    outputs = requantize(sums, numbers.multiplier, numbers.shift)
    return LayerWork(_step(entry, rows, numbers), x, outputs)


def _product(x: NDArray[np.int8], weight: NDArray[np.int8]) -> NDArray[np.int64]:
    """[rows, I] times [O, I], exact: float64 holds every sum below 2**53."""
    return np.rint(x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64)
