"""Codewords from a pool: bandwidth, density, rounding."""

import numpy as np
import pytest

from vq.clustering.kmeans import kmeans
from vq.errors import ConfigError
from vq.universal.density import codewords, sample, scott

RNG = np.random.default_rng(0)
MIXED = RNG.standard_normal((500, 3)) @ np.array([[2, 1, 0], [0, 1, 0], [0, 0.5, 0.3]]) + [1, 0, -1]
POINTS = MIXED.astype(np.float32)


def made(points=POINTS, k=16, by="kde", bandwidth=0.3, magnitudes=False, seed=0):
    return codewords(points, k, by, bandwidth=bandwidth, magnitudes=magnitudes, seed=seed)


def test_scott_by_hand():
    # Variances 4 and 0, in the mean 2; M = 4, d = 2: sqrt(2) * 4 ** (-1 / 6).
    points = np.float32([[0, 5], [0, 5], [4, 5], [4, 5]])
    assert scott(points) == pytest.approx(2**0.5 * 4 ** (-1 / 6), rel=1e-12)


def test_samples_have_the_mean_and_covariance_of_the_density():
    """The pool's, and bandwidth squared on the diagonal; within 5 standard errors."""
    count, h = 40_000, 0.7
    drawn = sample(POINTS, count, h, np.random.default_rng(1), magnitudes=False)
    covariance = np.cov(POINTS.T, bias=True) + h**2 * np.eye(3)
    error = 5 * np.sqrt(np.diag(covariance) / count)
    assert (np.abs(drawn.mean(0) - POINTS.mean(0, dtype=np.float64)) < error).all()
    products = np.einsum("ni,nj->nij", drawn - POINTS.mean(0), drawn - POINTS.mean(0))
    spread = 5 * products.std(0) / np.sqrt(count)
    assert (np.abs(products.mean(0) - covariance) < spread).all()
    assert (spread < 0.2 * h**2 + 0.05 * np.abs(covariance)).all(), "sharp enough to see h"


def test_magnitudes_are_folded_at_zero():
    folded = sample(np.abs(POINTS), 2000, 0.5, np.random.default_rng(1), magnitudes=True)
    plain = sample(np.abs(POINTS), 2000, 0.5, np.random.default_rng(1), magnitudes=False)
    assert (plain < 0).any() and np.array_equal(folded, np.abs(plain))
    words = made(np.abs(POINTS), magnitudes=True)
    assert words.min() >= 0 and words.max() == 127


@pytest.mark.parametrize("by", ["kde", "kmeans", "subsample"])
def test_codewords_differ_and_reach_the_largest_integer(by):
    words = made(k=100, by=by)
    assert words.shape == (100, 3) and words.dtype == np.int8
    assert len(np.unique(words, axis=0)) == 100 and np.abs(words.astype(int)).max() == 127
    assert np.array_equal(words, made(k=100, by=by))
    assert not np.array_equal(words, made(k=100, by=by, seed=1))


def test_each_way_makes_its_own_codewords():
    drawn = sample(POINTS, 50, 0.3, np.random.default_rng(0), magnitudes=False)
    assert np.array_equal(made(k=50), integers(drawn, np.abs(drawn).max()))
    centroids = kmeans(POINTS, 50, seed=0).codebook
    assert np.array_equal(made(k=50, by="kmeans"), integers(centroids, np.abs(centroids).max()))
    some = {tuple(word) for word in made(k=50, by="subsample")}
    assert any(some <= {tuple(w) for w in integers(POINTS, p)} for p in np.abs(POINTS).max(1))


def integers(words, peak):
    return np.rint(words * (127 / float(peak)))


def test_a_pool_of_few_points_gives_all_of_them_and_no_more():
    few = np.float32([[0, 0], [1, 0], [0, -2], [2, 2]])
    pool = np.repeat(few, 5, axis=0)
    for by in ("subsample", "kmeans"):
        words = made(pool, k=4, by=by)
        assert {tuple(w) for w in (words / 63.5).round()} == {tuple(w) for w in few}
        with pytest.raises(ConfigError, match="k must be at most the 4 codewords that differ, not"):
            made(pool, k=5, by=by)
    assert len(made(pool, k=5)) == 5  # noise tells them apart


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_in_place_of_a_double_counts_for_the_peak(seed):
    """Whether the large one comes first, or takes the place of the second small one."""
    pool = np.float32([[1], [1], [1], [50]])
    assert sorted(made(pool, k=2, by="subsample", seed=seed)[:, 0].tolist()) == [3, 127]


def test_what_is_left_over_does_not_count_for_the_peak():
    pool = np.float32([[1], [1], [3], [100]])
    found = {tuple(made(pool, k=2, by="subsample", seed=s)[:, 0].tolist()) for s in range(80)}
    assert (42, 127) in found  # of 1, 1, 3, 100 in this order


def test_zeros_make_no_codebook():
    with pytest.raises(ConfigError, match="sub-vectors that are drawn must not all be zeros"):
        made(np.zeros((20, 4), np.float32))
    sparse = np.zeros((2000, 2), np.float32)
    sparse[7] = 1
    assert sorted(made(sparse, k=2, by="subsample").tolist()) == [[0, 0], [127, 127]]
