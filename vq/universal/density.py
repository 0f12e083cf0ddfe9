"""Codewords from a pool of sub-vectors: sampled from its density, clustered, or taken from it.

The density is a sum of Gaussians, one around every sub-vector, all of one isotropic bandwidth
(VQ4ALL, arXiv 2412.06875, section 4.1; that the bandwidth is Scott's is our choice). A sample of
it is a sub-vector of the pool and Gaussian noise: one line of numpy, and no further package.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vq.clustering.kmeans import kmeans
from vq.container.constants import CODE_MAX
from vq.errors import ConfigError

__all__ = ["WAYS", "codewords", "sample", "scott"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: How codewords come out of a pool.
WAYS = ("kde", "kmeans", "subsample")
#: The density is asked for k codewords this often, until k differ from each other.
_ROUNDS = 20


def scott(points: F32) -> float:
    """Scott's bandwidth of points [M, d], ``sigma * M ** (-1 / (d + 4))``.

    ``sigma`` squared is the mean variance of the coordinates.
    """
    count, d = points.shape
    sigma = math.sqrt(points.var(axis=0, dtype=np.float64).mean())
    return sigma * math.pow(count, -1 / (d + 4))


def sample(
    points: F32, count: int, bandwidth: float, rng: np.random.Generator, *, magnitudes: bool
) -> F64:
    """Draw [count, d] from the density of points [M, d].

    That of magnitudes is folded at zero, as if every point had been there with all its signs.
    """
    chosen = points[rng.integers(len(points), size=count)]
    drawn = chosen + bandwidth * rng.standard_normal(chosen.shape)
    return np.abs(drawn) if magnitudes else drawn


def codewords(
    points: F32, k: int, by: str, *, bandwidth: float, magnitudes: bool, seed: int
) -> NDArray[np.int8]:
    """Make k codewords of points [M, d], all different, as integers up to 127.

    Parameters
    ----------
    points : [M, d] float32, M at least k
    k : int
    by : one of ``WAYS``
    bandwidth : float
        Of the density ("kde"), in the unit of the points.
    magnitudes : bool
        The points, and so the codewords, are not negative.
    seed : int

    Returns
    -------
    [k, d] int8

    Raises
    ------
    ConfigError
        If all points are zero, or fewer than k codewords differ.
    """
    if not points.any():
        raise ConfigError("sub-vectors that are drawn must not all be zeros; draw more samples")
    seen: F64 = np.empty((0, points.shape[1]))
    for offered in _offered(points, k, by, bandwidth, magnitudes, seed):
        seen = np.concatenate([seen, offered])
        integers = _rounded(seen)
        first = _different(integers)[:k]
        if len(first) == k:
            finer = _rounded(seen[first])  # by their own peak, not that of all
            return finer if len(_different(finer)) == k else integers[first]
    raise ConfigError(
        f"k must be at most the {len(first):,} codewords that differ, not {k:,}; choose a smaller "
        "k, or draw more samples"
    )


def _rounded(words: F64) -> NDArray[np.int8]:
    """Words as integers, of which the largest is 127."""
    peak = float(np.abs(words).max())
    return np.rint(words * (CODE_MAX / peak if peak else 1)).astype(np.int8)


def _offered(
    points: F32, k: int, by: str, bandwidth: float, magnitudes: bool, seed: int
) -> Iterator[F32 | F64]:
    """First k codewords, then others in case some of them are alike."""
    rng = np.random.default_rng(seed)
    if by == "kde":
        for _ in range(_ROUNDS):
            yield sample(points, k, bandwidth, rng, magnitudes=magnitudes)
        return
    if by == "kmeans":
        yield kmeans(points, k, seed=seed).codebook
    shuffled = rng.permutation(points)
    yield shuffled[:k]
    yield shuffled[k:]


def _different(words: NDArray[np.int8]) -> NDArray[np.intp]:
    """Places of the words that did not come before, in their order."""
    _, first = np.unique(words, axis=0, return_index=True)
    return np.sort(first)
