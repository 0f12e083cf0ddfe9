"""Random layers of every kind, each with the weights that a reader must give back."""

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from vq.container import Kept, Layer
from vq.container.order import from_matrix, join, to_stream

ONE = np.ones((), np.float32)
PROPERTY = settings(derandomize=True, deadline=None, max_examples=80)


@dataclass(frozen=True)
class Sample:
    layer: Layer
    integers: np.ndarray  # [O, I]
    weight: np.ndarray  # as the module holds it

    @property
    def name(self) -> str:
        return self.layer.geometry.name


def coded(
    name="a", method="ssvq", shape=(6, 10), d=4, k=5, axis="in", tile=16, parity=False,
    scales="layer", codebook=None, codebook_name=None, seed=0, transposed=False,
) -> Sample:  # fmt: skip
    """An ssvq or vq layer."""
    rng = np.random.default_rng(seed)
    outputs, inputs = shape[0], math.prod(shape[1:])
    along_outputs = axis == "out"
    rows, columns = (-(-outputs // d), inputs) if along_outputs else (outputs, -(-inputs // d))
    if codebook is None:
        codebook = random_codebook(rng, method, k, d)
    index = rng.integers(0, len(codebook), (rows, columns))
    values = codebook[index].astype(np.int16)
    scale = random_scale(rng, {"none": 0, "layer": 1, "output": outputs}[scales])
    op = "linear_t" if transposed else "linear" if len(shape) == 2 else "conv2d"
    common = dict(
        shape=shape, op=op, axis=axis, tile_outputs=tile,
        codebook=codebook, codebook_name=codebook_name, scale=scale,
        indices=to_stream(index, tile // d if along_outputs else tile),
    )  # fmt: skip
    if method == "ssvq":
        negative = rng.random((rows, columns, d)) < 0.5
        if parity:
            negative[..., -1] = negative[..., :-1].sum(axis=-1) % 2
        values = np.where(negative, -values, values)
        signs = to_stream(negative, tile // d if along_outputs else tile)
        layer = Layer.ssvq(name, signs=signs, parity=parity, **common)
    else:
        layer = Layer.vq(name, **common)
    integers = join(values.astype(np.int8), (outputs, inputs), axis)
    weight = weight_of(integers, scale[:, None] if scales != "none" else ONE, shape, axis)
    return Sample(layer, integers, weight.T if transposed else weight)


def int8(name="e", shape=(6, 10), tile=16, per_output=False, seed=0) -> Sample:
    rng = np.random.default_rng(seed)
    outputs, inputs = shape[0], math.prod(shape[1:])
    integers = rng.integers(-128, 128, (outputs, inputs)).astype(np.int8)
    scale = random_scale(rng, outputs if per_output else 1)
    op = "linear" if len(shape) == 2 else "conv2d"
    layer = Layer.int8(name, integers=integers, scale=scale, shape=shape, op=op, tile_outputs=tile)
    return Sample(layer, integers, weight_of(integers, scale[:, None], shape))


def grouped(name="f", method="int4", shape=(6, 10), tile=16, group=4, zeros=True, seed=0) -> Sample:
    rng = np.random.default_rng(seed)
    bits = int(method[3:])
    outputs, inputs = shape[0], math.prod(shape[1:])
    codes = rng.integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
    groups = (outputs, -(-inputs // group))
    scales = rng.standard_normal(groups).astype(np.float16)
    zero = rng.integers(0, 1 << bits, groups).astype(np.uint8) if zeros else None
    layer = Layer.grouped(
        name, method=method, codes=codes, group_scales=scales, group_zeros=zero, group=group,
        shape=shape, op="linear" if len(shape) == 2 else "conv2d", tile_outputs=tile,
    )  # fmt: skip
    column = np.arange(inputs) // group
    shift = 1 << (bits - 1) if zero is None else zero[:, column].astype(int)
    integers = (codes.astype(int) - shift).astype(np.int8)
    return Sample(layer, integers, weight_of(integers, scales[:, column], shape))


def random_codebook(rng, method: str, k: int, d: int) -> np.ndarray:
    return rng.integers(0 if method == "ssvq" else -128, 128, (k, d)).astype(np.int8)


def random_scale(rng, count: int) -> np.ndarray:
    return (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 3, count)).astype(np.float32)


def weight_of(
    integers: np.ndarray, scale: np.ndarray, shape: tuple[int, ...], axis: str = "in"
) -> np.ndarray:
    return from_matrix(integers.astype(np.float32) * scale.astype(np.float32), shape, axis)


KEPT = {
    "norm": Kept.from_numpy(np.linspace(-1, 1, 5, dtype=np.float32)),
    "half": Kept("BF16", (3,), bytes(range(6))),
    "flag": Kept.from_numpy(np.array(True)),
    "none": Kept.from_numpy(np.zeros((0, 4), np.int64)),
}


def one_of_each() -> list[Sample]:
    """A small file's layers: every method, a shared codebook, padding of every kind."""
    book = random_codebook(np.random.default_rng(9), "ssvq", 5, 4)
    return [
        coded("a", codebook=book, scales="output"),
        coded("b", codebook=book, codebook_name="a.codebook", parity=True, shape=(3, 2, 3, 1)),
        coded("c", method="vq", axis="out", d=2, k=7, tile=4, shape=(7, 5)),
        int8("e", shape=(5, 3, 2, 1), tile=2),
        grouped("f", "int4", tile=4),
        grouped("g", "int3", zeros=False, group=16),
        grouped("h", "int2", group=3),
    ]


@st.composite
def samples(draw, name: str = "a") -> Sample:
    """Any layer: method × d × k × axis × ragged shape × tile × parity × kind of scale."""
    method = draw(st.sampled_from(("ssvq", "vq", "int8", "int4", "int3", "int2")))
    taps = draw(st.sampled_from(((), (3, 1), (2, 2))))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), *taps)
    tile = draw(st.sampled_from((1, 2, 16, 32)))
    seed = draw(st.integers(0, 2**32))
    if method == "int8":
        return int8(name, shape, tile, draw(st.booleans()), seed)
    if method not in ("ssvq", "vq"):
        group = draw(st.sampled_from((1, 3, 16, 1000)))
        return grouped(name, method, shape, tile, group, draw(st.booleans()), seed)
    axis = draw(st.sampled_from(("in", "out", "kernel")))
    d = draw(st.sampled_from((1, 2, 3, 4, 8, 12, 16)))
    k = draw(st.sampled_from((2, 3, 16, 100, 256, 257, 3000)))
    if axis == "out":
        tile *= d
    parity = method == "ssvq" and d > 1 and draw(st.booleans())
    scales = draw(st.sampled_from(("layer", "output", "none")))
    transposed = not taps and draw(st.booleans())
    return coded(
        name, method, shape, d, k, axis, tile, parity, scales, seed=seed, transposed=transposed
    )
