"""What the hardware benches share: layers of random contents, on which cycles do not depend."""

from typing import Any

import numpy as np

from vq.container import Layer

__all__ = ["codebook_layer", "codes_layer", "int8_layer"]


def codebook_layer(
    name: str, shape: tuple[int, int], d: int, k: int, *, method: str = "ssvq"
) -> Layer:
    """A layer of ``ssvq``, ``vq``, or ``parity``, which is ssvq with parity signs."""
    rng = np.random.default_rng(0)
    n = shape[0] * shape[1] // d
    common: dict[str, Any] = {
        "codebook": rng.integers(0, 128, (k, d)).astype(np.int8),
        "indices": rng.integers(0, k, n),
        "scale": np.ones(1, np.float32),
        "shape": shape,
    }
    if method == "vq":
        return Layer.vq(name, **common)
    signs = rng.random((n, d)) < 0.5
    if method == "parity":
        signs[:, -1] = signs[:, :-1].sum(axis=1) % 2
    return Layer.ssvq(name, signs=signs, parity=method == "parity", **common)


def codes_layer(
    name: str, shape: tuple[int, int], bits: int, group: int, *, zeros: bool = False
) -> Layer:
    """A layer of int4, int3 or int2 in groups of inputs."""
    rng = np.random.default_rng(0)
    groups = (shape[0], shape[1] // group)
    return Layer.grouped(
        name,
        method=f"int{bits}",
        codes=rng.integers(0, 1 << bits, shape).astype(np.uint8),
        group_scales=np.ones(groups, np.float16),
        group_zeros=rng.integers(0, 1 << bits, groups).astype(np.uint8) if zeros else None,
        group=group,
    )


def int8_layer(name: str, shape: tuple[int, int]) -> Layer:
    """A layer of int8."""
    integers = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    return Layer.int8(name, integers=integers, scale=np.ones(shape[0], np.float32))
