"""A weight as the points that clustering sees: sub-vectors in units, and what errors cost."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.container import Geometry
from vq.container.order import split
from vq.layers import matrix_of

__all__ = ["SILENT", "costs_of", "root_mean_square", "sub_vectors"]

F32 = NDArray[np.float32]

#: Unit of an output without any weight: so small that whatever codeword it gets, it stays silent.
SILENT = 2.0**-100


def root_mean_square(weight: Tensor, geometry: Geometry, per_output: bool) -> Tensor:
    """Unit of a layer's latents: [1] or, per output, [O] float32; never 0.

    Outputs whose weights are all 0 stay silent. A layer of which that is all there is has unit 1,
    so that it can learn.
    """
    matrix = matrix_of(weight.detach(), geometry.op, geometry.axis).float()
    rows = matrix if per_output else matrix.reshape(1, -1)
    unit = rows.square().mean(dim=1).sqrt()
    return torch.where(unit > 0, unit, SILENT if unit.any() else 1.0)


def sub_vectors(weight: Tensor, geometry: Geometry, unit: Tensor) -> F32:
    """Cut a weight into sub-vectors in units of ``unit``: [N, d] float32, in grid order."""
    matrix = matrix_of(weight.detach(), geometry.op, geometry.axis).float()
    grid = split((matrix / unit[:, None]).cpu().numpy(), geometry.d, geometry.axis)
    return np.array(grid.reshape(-1, geometry.d))


def costs_of(
    geometries: Sequence[Geometry], importances: Sequence[Tensor | None], units: Sequence[Tensor]
) -> F32 | None:
    """Weights of all coordinates [N, d], or None if they are equal and no sub-vector is ragged.

    The filling of ragged sub-vectors weighs nothing.
    """
    if all(i is None for i in importances) and all(g.N * g.d == g.weights for g in geometries):
        return None
    parts = []
    for g, importance, unit in zip(geometries, importances, units, strict=True):
        matrix = np.ones((g.O, g.I), np.float32)
        if importance is not None:
            matrix = matrix_of(importance.detach(), g.op, g.axis).float().cpu().numpy()
            # Importance is that of errors in the weight itself, the points are in units.
            matrix = matrix * unit.square().cpu().numpy()[:, None]
            mean = float(matrix.mean(dtype=np.float64))
            matrix = matrix / mean if mean > 0 else np.ones_like(matrix)
        parts.append(split(matrix, g.d, g.axis).reshape(-1, g.d))
    return np.ascontiguousarray(np.concatenate(parts), np.float32)
