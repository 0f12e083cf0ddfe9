"""How formats cluster: by weighted k-means, on all cores."""

import math
import time

import numpy as np
from numpy.typing import NDArray

from vq.clustering.kmeans import ITERATIONS, assign, kmeans
from vq.formats.format import Clusterer

__all__ = ["KMeans"]

F32 = NDArray[np.float32]

_SAMPLE_POINTS = 32_768
_SAMPLE_ITERATIONS = 6


class KMeans(Clusterer):
    """k-means with a seed, and a clock that times it once for every kind of codebook.

    Parameters
    ----------
    seed : int
        Equal seeds and points give equal codebooks.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._known: dict[tuple[int, int, int, bool], tuple[float, float]] = {}

    def fit(self, points: F32, k: int, costs: F32 | None) -> F32:
        """Codebook [k, d] of ``points`` [N, d]; ``costs`` [N, d] weigh squared errors.

        Raises
        ------
        ValueError
            If there are fewer points than codewords.
        """
        return kmeans(points, k, weights=costs, seed=self._seed).codebook

    def nearest(
        self, points: F32, codebook: F32, costs: F32 | None
    ) -> tuple[NDArray[np.int64], F32]:
        """Index [N] of every point's nearest codeword, and its weighted squared distance [N]."""
        return assign(points, codebook, costs)

    def seconds(self, points: int, d: int, k: int, *, weighted: bool, passes: int = 0) -> float:
        """Estimate the time of :meth:`fit` on this machine, or of ``passes`` of :meth:`nearest`.

        Extrapolated from a moment of clustering random data.
        """
        sample = max(k, min(points, _SAMPLE_POINTS))
        key = (d, k, sample, weighted)
        if key not in self._known:
            self._known[key] = _measure(*key)
        start, iteration = self._known[key]
        if passes:
            return passes * iteration * points / sample
        # Measured on Gaussian data: the assignment settles after about 5 sqrt(N / k) iterations.
        iterations = min(ITERATIONS, 5 * math.sqrt(points / k))
        return start + iterations * iteration * points / sample


def _measure(d: int, k: int, points: int, weighted: bool) -> tuple[float, float]:
    """Seconds of the start, and of one iteration, on ``points`` random sub-vectors."""
    data = np.abs(np.random.default_rng(0).standard_normal((points, d), np.float32))
    weights = np.ones_like(data) if weighted else None
    # Shortest of several: the first run pays for the libraries' own start, any may be disturbed.
    shortest = {0: math.inf, _SAMPLE_ITERATIONS: math.inf}
    for iterations in 3 * list(shortest):
        begin = time.perf_counter()
        kmeans(data, k, weights=weights, iterations=iterations)
        shortest[iterations] = min(shortest[iterations], time.perf_counter() - begin)
    start, whole = shortest.values()
    return start, max(0.0, whole - start) / _SAMPLE_ITERATIONS
