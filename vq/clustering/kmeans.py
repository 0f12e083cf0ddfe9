"""Weighted k-means: the nearest-codeword search is faiss, the rest is here.

Weights per coordinate, which faiss does not know, have kernels in C (``source/``); without a
compiler, numpy computes the same in several times the time.

faiss has its own k-means, but it draws a random start, has no weights per coordinate, and splits
the largest cluster when one runs empty; all cost accuracy at the small k of a codebook.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from vq.native import kernels

__all__ = ["ITERATIONS", "START_POINTS_PER_CODEWORD", "Clustering", "assign", "kmeans"]

F32 = NDArray[np.float32]

#: Lloyd iterations at most; fewer if the assignment settles.
ITERATIONS = 50
#: The start looks at this many points per codeword; the iterations always use all of them.
START_POINTS_PER_CODEWORD = 256
#: Points whose distances to all codewords are held at once.
_ROWS = 1024
_SOURCE = Path(__file__).parent / "source" / "kmeans.c"


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
    if weights is not None:
        weights = np.ascontiguousarray(weights, np.float32)
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
        distances, found = faiss.knn(points, codebook, 1)
        least = distances[:, 0]
        return found[:, 0], least if weights is None else least * weights
    points, weights = (np.ascontiguousarray(x, np.float32) for x in (points, weights))
    indices = np.empty(len(points), np.int64)
    least = np.empty(len(points), np.float32)
    squares = np.square(codebook)
    sizes = (*points.shape, len(codebook))
    if _ran("nearest", *sizes, points, weights, codebook, squares, indices, least):
        return indices, least
    weighted = weights * points
    queries = np.concatenate([weights, weighted], axis=1)
    keys = np.concatenate([squares, -2 * codebook], axis=1).T
    for start in range(0, len(points), _ROWS):
        scores = queries[start : start + _ROWS] @ keys
        found = scores.argmin(axis=1)
        indices[start : start + _ROWS] = found
        least[start : start + _ROWS] = scores[np.arange(len(scores)), found]
    norms = np.einsum("nd,nd->n", weighted, points)
    return indices, np.maximum(norms + least, 0)


def _ran(name: str, *given: int | NDArray[Any]) -> bool:
    """Run a function of ``kmeans.c``; False where there is no compiler."""
    loaded = kernels("kmeans", _SOURCE)
    if loaded is None:
        return False
    arguments = (
        ctypes.c_int64(x) if isinstance(x, int) else ctypes.c_void_p(x.ctypes.data) for x in given
    )
    if getattr(loaded, f"signbook_{name}")(*arguments):
        raise MemoryError("there is no memory for a few points")
    return True


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
        if per_coordinate is None:
            difference = points - codebook[j]
            np.minimum(nearest, np.einsum("nd,nd->n", difference, difference), out=nearest)
        elif not _ran("approach", *points.shape, points, per_coordinate, codebook[j], nearest):
            difference = points - codebook[j]
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
    sums, masses = _sums(points, weights, indices, len(previous))
    codebook, moves = previous.copy(), masses > 0
    mean = sums[moves] / masses[moves]
    codebook[moves] = mean if step == 1 else previous[moves] * (1 - step) + mean * step
    empty = np.flatnonzero(masses.sum(axis=1) == 0)
    if len(empty):
        farthest = np.argsort(-distances, kind="stable")[: len(empty)]
        useful = distances[farthest] > 0
        codebook[empty[useful]] = points[farthest[useful]]
    return codebook


def _sums(
    points: F32, weights: F32 | None, indices: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of weighted points and of weights, by codeword; [k, d] each."""
    shape = k, points.shape[1]
    sums, masses = np.zeros(shape), np.zeros(shape)
    each = None if weights is None or weights.ndim == 1 else weights
    if each is not None and _ran("sums", *points.shape, points, each, indices, sums, masses):
        return sums, masses
    for j in range(shape[1]):
        w = weights if each is None else each[:, j]
        x = points[:, j]
        sums[:, j] = np.bincount(indices, x if w is None else x * w, minlength=k)
        masses[:, j] = np.bincount(indices, w, minlength=k)
    return sums, masses
