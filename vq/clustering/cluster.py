"""From a weight to sub-vectors, and from sub-vectors to a codebook.

Works on one codebook at a time: memory is a few copies of the layers that share it, whatever the
size of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.clustering.kmeans import assign, kmeans
from vq.container import Geometry
from vq.container.order import split
from vq.formats.integers import codebook_step, round_through
from vq.formats.settings import SSVQ, VQ
from vq.layers import matrix_of

__all__ = ["ClusteredLayer", "cluster", "root_mean_square", "sub_vectors"]

F32 = NDArray[np.float32]

#: Unit of an output without any weight: so small that whatever codeword it gets, it stays silent.
_SILENT = 2.0**-100


@dataclass(frozen=True)
class ClusteredLayer:
    """What clustering found for one layer.

    Attributes
    ----------
    codebook : [k, d] float32
        In units of the weight's root mean square. Layers that share it hold the same array.
    indices : [Go * Gi] unsigned integers
        Codeword of every sub-vector, in grid order.
    unit : [1] or [O] float32
        Root mean square of the weight.
    """

    codebook: F32
    indices: NDArray[np.unsignedinteger]
    unit: F32


def root_mean_square(weight: Tensor, geometry: Geometry, per_output: bool) -> Tensor:
    """Unit of a layer's latents: [1] or, per output, [O] float32; never 0.

    Outputs whose weights are all 0 stay silent. A layer of which that is all there is has unit 1,
    so that it can learn.
    """
    matrix = matrix_of(weight.detach(), geometry.op, geometry.axis).float()
    rows = matrix if per_output else matrix.reshape(1, -1)
    unit = rows.square().mean(dim=1).sqrt()
    return torch.where(unit > 0, unit, _SILENT if unit.any() else 1.0)


def sub_vectors(weight: Tensor, geometry: Geometry, unit: Tensor) -> F32:
    """Cut a weight into sub-vectors in units of ``unit``: [N, d] float32, in grid order."""
    matrix = matrix_of(weight.detach(), geometry.op, geometry.axis).float()
    grid = split((matrix / unit[:, None]).cpu().numpy(), geometry.d, geometry.axis)
    return np.array(grid.reshape(-1, geometry.d))


def cluster(
    method: SSVQ | VQ,
    geometries: Sequence[Geometry],
    weights: Sequence[Tensor],
    importances: Sequence[Tensor | None],
    per_output: Sequence[bool],
    *,
    seed: int,
) -> list[ClusteredLayer]:
    """Find one codebook for one layer, or for several that share it.

    Parameters
    ----------
    method : SSVQ or VQ
        SSVQ clusters magnitudes, VQ the sub-vectors themselves.
    geometries, weights : one per layer
    importances : one per layer
        Non-negative weights of the squared errors, shaped like the layer's weight; None for
        equal importance. Each layer's are scaled to mean 1, so that layers count by size.
    per_output : one per layer
        Whether its outputs have a unit each.
    seed : int

    Raises
    ------
    ValueError
        If there are fewer sub-vectors than codewords.
    """
    units = [
        root_mean_square(weight, g, each)
        for weight, g, each in zip(weights, geometries, per_output, strict=True)
    ]
    parts = []
    for weight, g, unit in zip(weights, geometries, units, strict=True):
        part = sub_vectors(weight, g, unit)
        parts.append(np.abs(part, out=part) if isinstance(method, SSVQ) else part)
    points = parts[0] if len(parts) == 1 else np.concatenate(parts)
    costs = _costs(geometries, importances, units)
    found = kmeans(points, method.k, weights=costs, seed=seed)
    # Codewords move a little when they are rounded: let every sub-vector choose again.
    rounded = _rounded(found.codebook)
    indices, _ = assign(points, rounded, costs)
    small: NDArray[Any] = indices.astype(np.uint8 if method.k <= 256 else np.uint16)
    ends = np.cumsum([g.N for g in geometries])
    return [
        ClusteredLayer(found.codebook, mine, unit.cpu().numpy())
        for mine, unit in zip(np.split(small, ends[:-1]), units, strict=True)
    ]


def _rounded(codebook: F32) -> F32:
    """Codebook as the integers of the container will represent it."""
    tensor = torch.from_numpy(codebook)
    step = codebook_step(tensor)
    rounded: F32 = (round_through(tensor / step) * step).numpy()
    return rounded


def _costs(
    geometries: Sequence[Geometry], importances: Sequence[Tensor | None], units: Sequence[Tensor]
) -> F32 | None:
    """Weights of all coordinates [N, d], or None if they are equal and no sub-vector is ragged.

    The filling of ragged sub-vectors weighs nothing.
    """
    if all(i is None for i in importances) and not any(_is_ragged(g) for g in geometries):
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


def _is_ragged(g: Geometry) -> bool:
    return g.N * g.d != g.weights
