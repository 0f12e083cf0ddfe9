"""What codebook weights start with: a codebook that is found by clustering, or a fixed one."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vq.container import Geometry
from vq.container.order import join
from vq.formats.codebook_weights import Start
from vq.formats.format import Clusterer, Original
from vq.formats.integers import book_step, codebook_step, round_through
from vq.formats.points import SILENT, costs_of, root_mean_square, sub_vectors

__all__ = ["cluster", "fit"]

F32 = NDArray[np.float32]

#: Scales that the search for a fixed codebook starts from: an octave in quarters, up and down.
_FACTORS = 2.0 ** (np.arange(-8, 9) / 4)
#: Sub-vectors that this search looks at.
_SAMPLE = 1 << 15
#: Rounds of assignment and least squares at most; fewer if the scales settle.
_ROUNDS = 8
_SETTLED = 1e-3


def cluster(
    layers: Sequence[Original], k: int, clusterer: Clusterer, *, magnitudes: bool
) -> list[Start]:
    """Find one codebook for one layer, or for several that share it.

    Memory is a few copies of these layers, whatever the size of the model.

    Parameters
    ----------
    layers : sequence of Original
        Importances are scaled to mean 1 in each, so that layers count by size.
    k : int
    clusterer : Clusterer
    magnitudes : bool
        Cluster magnitudes (SSVQ), and not the sub-vectors themselves.

    Raises
    ------
    ValueError
        If there are fewer sub-vectors than codewords.
    """
    geometries = [layer.geometry for layer in layers]
    units = [root_mean_square(x.weight, x.geometry, x.per_output) for x in layers]
    parts = [_points(x, unit, magnitudes) for x, unit in zip(layers, units, strict=True)]
    points = parts[0] if len(parts) == 1 else np.concatenate(parts)
    costs = costs_of(geometries, [layer.importance for layer in layers], units)
    codebook = clusterer.fit(points, k, costs)
    # Codewords move a little when they are rounded: let every sub-vector choose again.
    indices, _ = clusterer.nearest(points, _rounded(codebook), costs)
    ends = np.cumsum([g.N for g in geometries])
    return [
        Start(codebook, mine, unit)
        for mine, unit in zip(np.split(indices, ends[:-1]), units, strict=True)
    ]


def fit(
    layer: Original, book: NDArray[np.int8], clusterer: Clusterer, *, magnitudes: bool
) -> Start:
    """Choose the scales and the indices of a layer for a fixed codebook.

    A search over common factors on a sample of the sub-vectors finds where to start. From there,
    every sub-vector takes its nearest codeword and every scale its value of least squares, in
    turns, until the scales settle.

    Parameters
    ----------
    layer : Original
    book : [k, d] int8
        Not all zeros.
    clusterer : Clusterer
    magnitudes : bool
        Signs are stored beside the codewords (SSVQ).
    """
    g = layer.geometry
    unit = root_mean_square(layer.weight, g, layer.per_output)
    integers = torch.from_numpy(book).float()
    codewords: F32 = (integers * book_step(integers)).numpy()
    if not layer.weight.any():
        unit = torch.full_like(unit, SILENT)  # no codeword need be zero

    def points_and_costs() -> tuple[F32, F32 | None]:
        points = _points(layer, unit, magnitudes)
        return points, costs_of([g], [layer.importance], [unit])

    points, costs = points_and_costs()
    unit = unit * _best_factor(points, codewords, costs, clusterer)
    for _ in range(_ROUNDS):
        points, costs = points_and_costs()
        indices, _ = clusterer.nearest(points, codewords, costs)
        factor = _least_squares(g, points, codewords[indices], costs, len(unit)).to(unit.device)
        unit = unit * factor
        if bool(((factor - 1).abs() < _SETTLED).all()):
            break
    points, costs = points_and_costs()
    indices, _ = clusterer.nearest(points, codewords, costs)
    return Start(book, indices, unit)


def _points(layer: Original, unit: Tensor, magnitudes: bool) -> F32:
    points = sub_vectors(layer.weight, layer.geometry, unit)
    return np.abs(points, out=points) if magnitudes else points


def _rounded(codebook: F32) -> F32:
    """Codebook as the integers of the container will represent it."""
    tensor = torch.from_numpy(codebook)
    step = codebook_step(tensor)
    rounded: F32 = (round_through(tensor / step) * step).numpy()
    return rounded


def _best_factor(points: F32, codewords: F32, costs: F32 | None, clusterer: Clusterer) -> float:
    """Factor of the unit with which a sample of the points is nearest to the codewords."""
    stride = -(-len(points) // _SAMPLE)
    sample, weights = points[::stride], None if costs is None else costs[::stride].copy()
    errors = [
        float(factor**2 * distances.sum(dtype=np.float64))
        for factor in _FACTORS
        for _, distances in [clusterer.nearest(sample / np.float32(factor), codewords, weights)]
    ]
    return float(_FACTORS[int(np.argmin(errors))])


def _least_squares(g: Geometry, points: F32, chosen: F32, costs: F32 | None, scales: int) -> Tensor:
    """Factors of the units, [scales] float32, that bring ``chosen`` [N, d] nearest to ``points``.

    1 where nothing can be learnt of a scale, or where a negative one would be best.
    """
    weighted = chosen if costs is None else chosen * costs
    sums = [_per_scale(g, weighted * other, scales) for other in (points, chosen)]
    learnt = (sums[0] > 0) & (sums[1] > 0)
    factor = np.divide(sums[0], sums[1], out=np.ones(scales), where=learnt)
    return torch.from_numpy(factor.astype(np.float32))


def _per_scale(g: Geometry, values: F32, scales: int) -> NDArray[np.float64]:
    """Sum over the weights of each scale; ``values`` [N, d] are in grid order."""
    if scales == 1:
        return np.array([values.sum(dtype=np.float64)])
    sums: NDArray[np.float64] = join(values.reshape(*g.grid, g.d), (g.O, g.I), g.axis).sum(
        axis=1, dtype=np.float64
    )
    return sums
