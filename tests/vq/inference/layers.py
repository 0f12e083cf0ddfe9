"""Layers in the forms of the kernels, and what multiplying by them must give."""

import numpy as np
import torch

from tests.vq.container.samples import Sample, coded, grouped, int8
from vq.inference import reference
from vq.inference.weight import PackedWeight

#: One of each form of tiles, ragged, with sums of several pieces where the size allows.
FORMS = {
    "nibbles8": lambda: coded(shape=(37, 130), d=8, k=16, scales="output"),
    "nibbles4": lambda: coded(shape=(33, 90), d=4, k=13, scales="output", tile=64),
    "bytes": lambda: coded(shape=(20, 100), d=8, k=256, tile=10),
    "parity": lambda: coded(shape=(18, 70), d=8, k=16, parity=True),
    "planes": lambda: coded(shape=(40, 66), d=2, k=60, scales="none"),
    "seven": lambda: coded(shape=(40, 66), d=16, k=100),
    "vq": lambda: coded(method="vq", shape=(40, 66), d=4, k=256),
    "out": lambda: coded(shape=(70, 30), d=8, k=16, axis="out", tile=16),
    "int8": lambda: int8(shape=(37, 131), per_output=True),
    "int4": lambda: grouped(method="int4", shape=(37, 131), group=32),
    "int3": lambda: grouped(method="int3", shape=(17, 50), group=7, zeros=False),
    "int2": lambda: grouped(method="int2", shape=(17, 50), group=1000),
}


def weight_of(sample: Sample, activations: str = "int8") -> PackedWeight:
    return PackedWeight.encoded(sample.layer, torch.float32, activations, {})


def inputs_of(sample: Sample, tokens: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, sample.layer.geometry.I)).astype(np.float32)
    return x * np.float32(10.0) ** rng.integers(-30, 30, (tokens, 1)).astype(np.float32)


def wanted(sample: Sample, x: np.ndarray, bias: np.ndarray | None, activations: str) -> np.ndarray:
    """What the numpy reference gives, [M, O]."""
    layer, g = sample.layer, sample.layer.geometry
    if g.group:
        scales = weight_of(sample).scale.numpy().swapaxes(1, 2).reshape(-1, g.groups // g.O)[: g.O]
        return reference.grouped_linear(
            x, sample.integers, scales, g.group_width, bias, activations
        )
    scale = layer.scale if g.scales else np.ones(1, np.float32)
    return reference.linear(x, sample.integers, scale, bias, activations)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
