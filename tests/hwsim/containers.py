"""Small containers with random contents."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vq.container import Layer, write_container


class Maker:
    """Random layers of every method; shapes may be ragged."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def scale(self, count: int = 1) -> np.ndarray:
        return self.rng.uniform(0.01, 0.1, count).astype(np.float32)

    def codebook(self, k: int, d: int, *, signed: bool) -> np.ndarray:
        low = -128 if signed else 0
        return self.rng.integers(low, 128, (k, d)).astype(np.int8)

    def ssvq(
        self, name: str, shape: tuple[int, ...], d: int, k: int, *, parity: bool = False, **extra
    ) -> Layer:
        grid = shape[0] * -(-int(np.prod(shape[1:])) // d)
        signs = self.rng.integers(0, 2, (grid, d)).astype(bool)
        if parity:
            signs[:, -1] = signs[:, :-1].sum(axis=1) % 2
        extra.setdefault("codebook", self.codebook(k, d, signed=False))
        return Layer.ssvq(
            name, indices=self.rng.integers(0, k, grid), signs=signs, scale=self.scale(),
            shape=shape, parity=parity, **extra,
        )  # fmt: skip

    def vq(self, name: str, shape: tuple[int, ...], d: int, k: int, **extra) -> Layer:
        grid = shape[0] * -(-int(np.prod(shape[1:])) // d)
        extra.setdefault("codebook", self.codebook(k, d, signed=True))
        return Layer.vq(
            name, indices=self.rng.integers(0, k, grid), scale=self.scale(shape[0]),
            shape=shape, **extra,
        )  # fmt: skip

    def int8(self, name: str, shape: tuple[int, int]) -> Layer:
        integers = self.rng.integers(-128, 128, shape).astype(np.int8)
        return Layer.int8(name, integers=integers, scale=self.scale(shape[0]))

    def codes(
        self, name: str, shape: tuple[int, int], bits: int, group: int, *, zeros: bool, **extra
    ) -> Layer:
        groups = (shape[0], -(-shape[1] // group))
        given = self.rng.integers(0, 1 << bits, groups).astype(np.uint8) if zeros else None
        return Layer.grouped(
            name, method=f"int{bits}", group=group, group_zeros=given,
            codes=self.rng.integers(0, 1 << bits, shape).astype(np.uint8),
            group_scales=self.rng.uniform(0.01, 0.1, groups).astype(np.float16), **extra,
        )  # fmt: skip


def write(path: Path, layers: Sequence[Layer]) -> Path:
    """Write a container and return its path."""
    write_container(path, layers=layers)
    return path
