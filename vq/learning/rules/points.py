"""Tensors that are shaped like a layer's weight, as its sub-vectors."""

import torch
from torch import Tensor

from vq.formats.model import CompressedLayer
from vq.formats.points import sub_vectors

__all__ = ["cut", "real"]


def cut(weight: Tensor, layer: CompressedLayer, unit: Tensor | None = None) -> Tensor:
    """Cut a tensor shaped like the weight into sub-vectors [N, d], in units if these are given."""
    unit = torch.ones(1, device=weight.device) if unit is None else unit
    points = sub_vectors(weight, layer.weight.geometry, unit)
    return torch.from_numpy(points).to(weight.device)


def real(layer: CompressedLayer) -> Tensor:
    """1 where a sub-vector holds weights, 0 in the filling of ragged ones; [N, d], or [] of 1."""
    g, weight = layer.weight.geometry, layer.module.weight
    assert isinstance(weight, Tensor)
    if g.N * g.d == g.weights:
        return torch.ones((), device=weight.device)
    return cut(torch.ones_like(weight), layer)
