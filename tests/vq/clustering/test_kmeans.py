"""k-means against a slow reference, and its promises: all data, weights, empty clusters, seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vq.clustering import kmeans as module
from vq.clustering.kmeans import assign, kmeans


def gaussians(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def reference_step(points, weights, codebook):
    """One Lloyd iteration written without any cleverness."""
    distances = ((points[:, None, :].astype(np.float64) - codebook[None]) ** 2).sum(-1)
    indices = distances.argmin(1)
    moved = codebook.copy()
    for j in range(len(codebook)):
        mine = indices == j
        if weights[mine].sum() > 0:
            moved[j] = np.average(points[mine], axis=0, weights=weights[mine])
    return moved, indices


@given(n=st.integers(1, 200), d=st.integers(1, 9), k=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_result_is_a_fixed_point_of_plain_lloyd(n, d, k, seed):
    k = min(k, n)
    points = gaussians(n, d, seed)
    weights = np.random.default_rng(seed).random(n).astype(np.float32) + 0.1
    found = kmeans(points, k, weights=weights, iterations=500, seed=seed)
    moved, indices = reference_step(points, weights, found.codebook)
    np.testing.assert_allclose(moved, found.codebook, atol=2e-5)
    distances = ((points - found.codebook[found.indices]) ** 2).sum(1)
    assert found.inertia == pytest.approx((distances * weights).sum(), rel=1e-4, abs=1e-4)
    best = ((points - found.codebook[indices]) ** 2).sum(1)
    np.testing.assert_allclose(distances, best, atol=1e-4)


def test_equal_seeds_give_equal_results_and_other_seeds_others():
    points = gaussians(5000, 8)
    first, again, other = (kmeans(points, 16, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.codebook, again.codebook)
    assert np.array_equal(first.indices, again.indices)
    assert not np.array_equal(first.codebook, other.codebook)


def test_codewords_that_go_further_are_there_sooner():
    points = gaussians(20_000, 4)
    weights = np.random.default_rng(1).random(points.shape).astype(np.float32)
    start = kmeans(points, 32, weights=weights, iterations=0).codebook
    arms = [(12, 1.0), (36, 1.0), (12, 2.0)]
    plain, long, far = (
        kmeans(points, 32, weights=weights, iterations=n, start=start, step=step)
        for n, step in arms
    )
    assert far.inertia < 0.4 * long.inertia + 0.6 * plain.inertia
    # The last move is no further than to the mean of what each codeword had.
    before = kmeans(points, 32, weights=weights, iterations=0, start=far.codebook)
    assert before.inertia == far.inertia
    mean = kmeans(points, 32, weights=weights, iterations=1, start=far.codebook).inertia
    assert 0.995 * far.inertia < mean <= far.inertia


def test_a_settled_assignment_ends_at_the_means():
    points = gaussians(300, 2)
    found = kmeans(points, 4, iterations=500, step=1.5)
    moved, _ = reference_step(points, np.ones(300), found.codebook)
    np.testing.assert_allclose(moved, found.codebook, atol=2e-5)
    assert found.iterations < 500


def test_weights_act_as_repetitions():
    points = gaussians(400, 4)
    counts = np.random.default_rng(1).integers(1, 5, 400)
    start = kmeans(points, 8, seed=0).codebook
    weighted, _ = reference_step(points, counts.astype(np.float32), start)
    repeated, _ = reference_step(np.repeat(points, counts, axis=0), np.ones(counts.sum()), start)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-5)
    one = kmeans(points, 8, weights=counts.astype(np.float32), iterations=300)
    _, distances = assign(points, one.codebook)
    assert one.inertia == pytest.approx((distances * counts).sum(), rel=1e-5)


def test_points_of_weight_zero_do_not_move_codewords():
    points = np.concatenate([gaussians(100, 2), gaussians(50, 2, 1) + 100])
    weights = np.concatenate([np.ones(100), np.zeros(50)]).astype(np.float32)
    assert np.abs(kmeans(points, 4, weights=weights).codebook).max() < 10


def test_every_point_counts_even_when_the_start_sees_a_sample(monkeypatch):
    monkeypatch.setattr(module, "START_POINTS_PER_CODEWORD", 4)
    points = gaussians(3000, 3)
    found = kmeans(points, 5, iterations=300)
    moved, _ = reference_step(points, np.ones(len(points)), found.codebook)
    np.testing.assert_allclose(moved, found.codebook, atol=2e-4)


def test_empty_codeword_moves_to_the_farthest_point():
    points = np.array([[0.0], [0.1], [0.2], [9.0]], np.float32)
    indices, distances = np.array([0, 0, 0, 0]), ((points - 0.1) ** 2)[:, 0]
    previous = np.array([[0.1], [500.0]], np.float32)
    moved = module._centroids(points, None, indices, distances, previous)
    assert moved[1, 0] == 9.0


def test_k_codewords_stay_distinct_when_the_data_allow():
    points = np.repeat(np.arange(6, dtype=np.float32)[:, None], 50, axis=0)
    assert len(np.unique(kmeans(points, 6, seed=1).codebook)) == 6
    assert kmeans(points, 6, seed=1).inertia == 0


def test_fewer_distinct_points_than_codewords_still_works():
    found = kmeans(np.ones((10, 4), np.float32), 3)
    assert found.inertia == 0 and np.array_equal(found.codebook, np.ones((3, 4), np.float32))


@pytest.mark.parametrize("k", [0, 11])
def test_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=rf"^k must be between 1 and the 10 points, not {k}$"):
        kmeans(gaussians(10, 2), k)


def test_start_is_better_than_a_random_one():
    points = np.concatenate([gaussians(200, 2, s) * 0.1 + 10 * s for s in range(8)])
    rng = np.random.default_rng(0)
    random = [
        assign(points, points[rng.choice(len(points), 8, replace=False)])[1].sum()
        for _ in range(20)
    ]
    ours = [kmeans(points, 8, iterations=0, seed=s).inertia for s in range(20)]
    assert np.median(ours) < 0.5 * np.median(random)


@given(n=st.integers(2, 120), d=st.integers(1, 6), k=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_weights_per_coordinate_are_a_fixed_point_too(n, d, k, seed):
    k = min(k, n)
    points = gaussians(n, d, seed)
    weights = np.random.default_rng(seed + 1).random((n, d)).astype(np.float32) + 0.05
    found = kmeans(points, k, weights=weights, iterations=500, seed=seed)
    distances = ((points[:, None] - found.codebook[None]) ** 2 * weights[:, None]).sum(-1)
    chosen = distances[np.arange(n), found.indices]
    np.testing.assert_allclose(chosen, distances.min(1), atol=1e-4)
    assert found.inertia == pytest.approx(chosen.sum(), rel=1e-3, abs=1e-3)
    for j in range(k):
        mine = found.indices == j
        if mine.any():
            mean = np.average(points[mine], axis=0, weights=weights[mine])
            np.testing.assert_allclose(found.codebook[j], mean, atol=1e-4)


def test_coordinates_of_weight_zero_do_not_matter():
    points = gaussians(300, 3)
    noisy = points.copy()
    noisy[:, 2] = 1000 * gaussians(300, 1, 5)[:, 0]
    weights = np.ones_like(points)
    weights[:, 2] = 0
    a, b = (kmeans(p, 8, weights=weights, seed=1) for p in (points, noisy))
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.codebook[:, :2], b.codebook[:, :2], atol=1e-5)


@pytest.mark.parametrize("d", [1, 3, 4, 8])
def test_kernels_compute_what_numpy_does(d, monkeypatch):
    points, start = gaussians(1001, d), gaussians(30, d, 1)
    weights = np.random.default_rng(1).random(points.shape).astype(np.float32)
    mine = assign(points, start, weights), kmeans(points, 30, weights=weights, iterations=3)
    monkeypatch.setattr(module, "kernels", lambda name, main: None)
    theirs = assign(points, start, weights), kmeans(points, 30, weights=weights, iterations=3)
    assert (mine[0][0] == theirs[0][0]).mean() > 0.998  # ties within rounding
    np.testing.assert_allclose(mine[0][1], theirs[0][1], atol=1e-5)
    np.testing.assert_allclose(mine[1].codebook, theirs[1].codebook, atol=1e-5)
    want = (weights * (points - start[mine[0][0]]) ** 2).sum(1)
    np.testing.assert_allclose(mine[0][1], want, atol=1e-5)
