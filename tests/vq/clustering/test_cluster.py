"""How formats cluster."""

import numpy as np

from vq.clustering import cluster as module
from vq.clustering.cluster import KMeans
from vq.clustering.kmeans import assign, kmeans

POINTS = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)


def test_it_is_kmeans_with_a_seed():
    costs = np.abs(POINTS) + 1
    found = KMeans(3).fit(POINTS, 8, costs)
    assert np.array_equal(found, kmeans(POINTS, 8, weights=costs, seed=3).codebook)
    assert not np.array_equal(found, KMeans(4).fit(POINTS, 8, costs))
    for mine, plain in zip(
        KMeans().nearest(POINTS, found, costs), assign(POINTS, found, costs), strict=True
    ):
        assert np.array_equal(mine, plain)


def test_every_kind_of_codebook_is_timed_once(monkeypatch):
    timed = []
    monkeypatch.setattr(module, "_measure", lambda *key: timed.append(key) or (1.0, 0.5))
    clock = KMeans()
    assert clock.seconds(10**6, 4, 16, weighted=False) == 1 + 50 * 0.5 * 10**6 / 32768
    assert clock.seconds(10**5, 4, 16, weighted=False, passes=2) == 2 * 0.5 * 10**5 / 32768
    assert clock.seconds(64, 4, 16, weighted=False) == 1 + 10 * 0.5
    assert timed == [(4, 16, 32768, False), (4, 16, 64, False)]
