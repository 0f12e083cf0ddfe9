"""Weighted k-means: the nearest-codeword search is faiss, the rest is here.

faiss has its own k-means, but it draws a random start and splits the largest cluster when one
runs empty; both cost accuracy at the small k of a codebook.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["Clustering", "assign", "kmeans"]

F32 = NDArray[np.float32]

#: The start looks at this many points per codeword; the iterations always use all of them.
START_POINTS_PER_CODEWORD = 256


@dataclass(frozen=True)
class Clustering:
    """Result of :func:`kmeans`.

    Attributes
    ----------
    codebook : [k, d] float32
    indices : [N] int64
        Nearest codeword of every point.
    inertia : float
        Weighted sum of squared distances to it.
    iterations : int
        Lloyd iterations that ran.
    """

    codebook: F32
    indices: NDArray[np.int64]
    inertia: float
    iterations: int


def kmeans(
    points: F32,
    k: int,
    *,
    weights: F32 | None = None,
    iterations: int = 50,
    seed: int = 0,
) -> Clustering:
    """Cluster ``points`` by Lloyd's algorithm from a k-means++ start.

    Every iteration uses all points. A codeword that attracts none moves to the point that is
    farthest from its own codeword (by weighted distance). Equal arguments give equal results.

    Parameters
    ----------
    points : [N, d] float32
    k : int, at most N
    weights : [N] float32, optional
        Importance of every point, non-negative and not all zero.
    iterations : int
        At most this many; fewer if the assignment stops changing.
    seed : int

    Raises
    ------
    ValueError
        If ``k`` is not between 1 and N.
    """
    points = np.ascontiguousarray(points, np.float32)
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be between 1 and the {len(points)} points, not {k}")
    rng = np.random.default_rng(seed)
    codebook = _plus_plus(points, k, weights, rng)
    indices, distances = assign(points, codebook)
    done, previous = 0, np.full_like(indices, -1)
    while done < iterations and not np.array_equal(previous, indices):
        codebook = _centroids(points, weights, indices, distances, codebook)
        previous = indices
        indices, distances = assign(points, codebook)
        done += 1
    cost = distances if weights is None else distances * weights
    return Clustering(codebook, indices, float(cost.sum(dtype=np.float64)), done)


def assign(points: F32, codebook: F32) -> tuple[NDArray[np.int64], F32]:
    """Find the nearest codeword of every point: indices [N] and squared distances [N]."""
    distances, indices = faiss.knn(points, np.ascontiguousarray(codebook, np.float32), 1)
    return indices[:, 0], distances[:, 0]


def _plus_plus(points: F32, k: int, weights: F32 | None, rng: np.random.Generator) -> F32:
    """Draw k starting codewords, each with probability weight x squared distance to the rest."""
    limit = k * START_POINTS_PER_CODEWORD
    if len(points) > limit:
        chosen = rng.choice(len(points), limit, replace=False)
        points = points[chosen]
        weights = None if weights is None else weights[chosen]
    mass = np.ones(len(points)) if weights is None else weights.astype(np.float64)
    codebook = np.empty((k, points.shape[1]), np.float32)
    nearest = np.full(len(points), np.inf, np.float32)
    probability = mass
    for j in range(k):
        cumulative = np.cumsum(probability)
        if not cumulative[-1] > 0:  # fewer distinct points than codewords: repeat some
            cumulative = np.arange(1.0, len(points) + 1)
        at = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
        codebook[j] = points[min(int(at), len(points) - 1)]
        difference = points - codebook[j]
        np.minimum(nearest, np.einsum("nd,nd->n", difference, difference), out=nearest)
        probability = mass * nearest
    return codebook


def _centroids(
    points: F32,
    weights: F32 | None,
    indices: NDArray[np.int64],
    distances: F32,
    previous: F32,
) -> F32:
    """Move every codeword to the weighted mean of its points, empty ones to the farthest points."""
    k = len(previous)
    total = np.bincount(indices, weights, minlength=k)
    weighted = points if weights is None else points * weights[:, None]
    sums = np.stack([np.bincount(indices, column, minlength=k) for column in weighted.T], axis=1)
    filled = total > 0
    codebook = previous.copy()
    codebook[filled] = (sums[filled] / total[filled, None]).astype(np.float32)
    empty = np.flatnonzero(~filled)
    if len(empty):
        cost = distances if weights is None else distances * weights
        farthest = np.argsort(-cost, kind="stable")[: len(empty)]
        useful = cost[farthest] > 0
        codebook[empty[useful]] = points[farthest[useful]]
    return codebook
