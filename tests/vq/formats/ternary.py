"""A format from outside, whole in this file: -1, 0 and 1 times a scale per group, kept as int2."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vq.container import TILE_OUTPUTS, Geometry, Layer
from vq.formats.format import Clusterer, Format, Original
from vq.formats.grids import spread
from vq.formats.integers import round_through
from vq.formats.weights import Compressed
from vq.layers import matrix_of, weight_of


@dataclass(frozen=True)
class Ternary(Format):
    name: ClassVar[str] = "ternary"

    group: int = 64
    tile_outputs: int = TILE_OUTPUTS

    def problems(self) -> list[str]:
        return [] if self.group > 0 else [f"group must be positive, not {self.group}"]

    def geometry(self, layer: str, op: str, shape: tuple[int, ...]) -> Geometry:
        tile, group = self.tile_outputs, self.group
        return Geometry(layer, op, shape, "int2", tile_outputs=tile, scales=0, group=group)

    def compress(self, layers: Sequence[Original], clusterer: Clusterer) -> list[Compressed]:
        return [TernaryWeight(layer.geometry, layer.weight.dtype) for layer in layers]


class TernaryWeight(Compressed):
    """Trains the weight itself; the scale of a group is its mean magnitude."""

    roles = ("weight",)

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.detach().float().clone(),)

    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        g = self.geometry
        matrix = matrix_of(weight, g.op, g.axis)
        padded = torch.nn.functional.pad(matrix.detach().abs(), (0, -g.I % g.group_width))
        scale = padded.reshape(g.O, -1, g.group_width).mean(2).clamp(min=2**-20).half().float()
        return round_through(matrix / spread(scale, g), -1, 1), scale

    def forward(self, weight: Tensor) -> Tensor:
        g = self.geometry
        integers, scale = self.integers(weight)
        return weight_of(integers * spread(scale, g), g.shape, g.op, g.axis).to(self.dtype)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        integers, scale = self.integers(originals[0].detach())
        g = replace(self.geometry, name=name)
        return Layer.scalar(g, integers.cpu().numpy().astype(np.int8), scale.cpu().numpy())
