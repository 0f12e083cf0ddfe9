"""Weighted k-means: the nearest-codeword search is faiss, the rest is here.

faiss has its own k-means, but it draws a random start, has no weights per coordinate, and splits
the largest cluster when one runs empty; all cost accuracy at the small k of a codebook.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["ITERATIONS", "START_POINTS_PER_CODEWORD", "Clustering", "assign", "kmeans"]

F32 = NDArray[np.float32]

#: Lloyd iterations at most; fewer if the assignment settles.
ITERATIONS = 50
#: The start looks at this many points per codeword; the iterations always use all of them.
START_POINTS_PER_CODEWORD = 256
#: Points whose distances to all codewords are held at once.
_ROWS = 1024


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
    iterations: int = ITERATIONS,
    seed: int = 0,
    start: F32 | None = None,
    step: float = 1.0,
) -> Clustering:
    """Cluster ``points`` by Lloyd's algorithm from a k-means++ start.

    Every iteration uses all points. A codeword that attracts none moves to the point that is
    farthest from its own codeword (by weighted distance). Equal arguments give equal results.

    Parameters
    ----------
    points : [N, d] float32
    k : int, at most N
    weights : [N] or [N, d] float32, optional
        Importance of every point, or of every coordinate of every point; non-negative.
    iterations : int
        At most this many; fewer if the assignment stops changing.
    seed : int
    start : [k, d] float32, optional
        Codebook to start from, in place of k-means++.
    step : float
        How far codewords move, in units of the way to the mean of their points: at 2, a third of
        the iterations come as far. The last iteration moves them to the mean.

    Raises
    ------
    ValueError
        If ``k`` is not between 1 and N.
    """
    points = np.ascontiguousarray(points, np.float32)
    if not 1 <= k <= len(points):
        raise ValueError(f"k must be between 1 and the {len(points)} points, not {k}")
    rng = np.random.default_rng(seed)
    codebook = _plus_plus(points, k, weights, rng) if start is None else start
    indices, distances = assign(points, codebook, weights)
    done, previous = 0, np.full_like(indices, -1)
    while done < iterations:
        if np.array_equal(previous, indices):
            if step == 1:
                break
            step = 1.0
        way = 1.0 if done == iterations - 1 else step
        codebook = _centroids(points, weights, indices, distances, codebook, way)
        previous = indices
        indices, distances = assign(points, codebook, weights)
        done += 1
    return Clustering(codebook, indices, float(distances.sum(dtype=np.float64)), done)


def assign(points: F32, codebook: F32, weights: F32 | None = None) -> tuple[NDArray[np.int64], F32]:
    """Find the nearest codeword of every point.

    With weights per coordinate, "nearest" is by ``sum_j w_j (x_j - c_j)**2``. That is a search for
    the largest inner product of ``(w, w x)`` with ``(-c**2, 2 c)``.

    Returns
    -------
    indices : [N] int64
    distances : [N] float32
        Squared and weighted.
    """
    codebook = np.ascontiguousarray(codebook, np.float32)
    if weights is None or weights.ndim == 1:
        distances, indices = faiss.knn(points, codebook, 1)
        nearest = distances[:, 0]
        return indices[:, 0], nearest if weights is None else nearest * weights
    weighted = weights * points
    queries = np.concatenate([weights, weighted], axis=1)
    keys = np.concatenate([np.square(codebook), -2 * codebook], axis=1).T
    indices = np.empty(len(points), np.int64)
    least = np.empty(len(points), np.float32)
    for start in range(0, len(points), _ROWS):
        scores = queries[start : start + _ROWS] @ keys
        nearest = scores.argmin(axis=1)
        indices[start : start + _ROWS] = nearest
        least[start : start + _ROWS] = scores[np.arange(len(scores)), nearest]
    norms = np.einsum("nd,nd->n", weighted, points)
    return indices, np.maximum(norms + least, 0)


def _plus_plus(points: F32, k: int, weights: F32 | None, rng: np.random.Generator) -> F32:
    """Draw k starting codewords, each with probability weight x squared distance to the rest."""
    limit = k * START_POINTS_PER_CODEWORD
    if len(points) > limit:
        chosen = rng.choice(len(points), limit, replace=False)
        points = points[chosen]
        weights = None if weights is None else weights[chosen]
    per_coordinate = weights if weights is not None and weights.ndim == 2 else None
    mass: NDArray[np.float64] = np.ones(len(points))
    if weights is not None:
        mass = (weights if weights.ndim == 1 else weights.sum(axis=1)).astype(np.float64)
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
        if per_coordinate is None:
            distance = np.einsum("nd,nd->n", difference, difference)
        else:
            distance = np.einsum("nd,nd,nd->n", per_coordinate, difference, difference)
        np.minimum(nearest, distance, out=nearest)
        probability = mass * nearest if per_coordinate is None else nearest.astype(np.float64)
    return codebook


def _centroids(
    points: F32,
    weights: F32 | None,
    indices: NDArray[np.int64],
    distances: F32,
    previous: F32,
    step: float = 1.0,
) -> F32:
    """Move every codeword towards the weighted mean of its points, empty ones to the farthest."""
    k, d = previous.shape
    count = np.bincount(indices, minlength=k)
    total = np.zeros(k)
    codebook = previous.copy()
    for j in range(d):
        w = None if weights is None else weights if weights.ndim == 1 else weights[:, j]
        x = points[:, j]
        sums = np.bincount(indices, x if w is None else x * w, minlength=k)
        mass = count if w is None else np.bincount(indices, w, minlength=k)
        moves = mass > 0
        mean = sums[moves] / mass[moves]
        codebook[moves, j] = mean if step == 1 else previous[moves, j] * (1 - step) + mean * step
        total += mass
    empty = np.flatnonzero(total == 0)
    if len(empty):
        farthest = np.argsort(-distances, kind="stable")[: len(empty)]
        useful = distances[farthest] > 0
        codebook[empty[useful]] = points[farthest[useful]]
    return codebook
