"""Speed of packing and unpacking streams, in gigabytes of int8-equivalent weights per second.

One thread, ``--seeds`` rounds; each figure is the best of three calls in its round. The bound is
memory: reading one byte and writing one byte per weight.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from harness import Bench

from vq.container import Geometry
from vq.container.codec import decode_codes, decode_subvectors, encode_codes, encode_subvectors

WEIGHTS = 1 << 24


def fastest(run: Callable[[], object]) -> float:
    """Best time of three calls, in seconds."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def codebook_layer(method: str, d: int, k: int, parity: bool, weights: int, seed: int) -> dict:
    """Pack and unpack random indices and signs."""
    rng = np.random.default_rng(seed)
    sign_bits = 0 if method == "vq" else d - parity
    g = Geometry("w", "linear", (weights // 4096, 4096), method, "in", 16, d, k, sign_bits, 1, "c")
    indices = rng.integers(0, k, g.N).astype(np.uint8 if k <= 256 else np.uint16)
    signs = None
    if sign_bits:
        signs = rng.random((g.N, d)) < 0.5
        signs[:, -1] = signs[:, :-1].sum(axis=1) % 2
    codebook = rng.integers(0, 128, (k, d)).astype(np.int8)
    stream = encode_subvectors(g, indices, signs)
    return {
        "pack_gb_per_s": weights / 1e9 / fastest(lambda: encode_subvectors(g, indices, signs)),
        "unpack_gb_per_s": weights / 1e9 / fastest(lambda: decode_subvectors(g, stream, codebook)),
    }


def scalar_layer(method: str, weights: int, seed: int) -> dict:
    """Pack and unpack random codes."""
    shape = (weights // 4096, 4096)
    if method == "int8":
        g = Geometry("w", "linear", shape, "int8")
    else:
        g = Geometry("w", "linear", shape, method, scales=0, group=128)
    codes = np.random.default_rng(seed).integers(0, 1 << g.b, weights).astype(np.uint8)
    stream = encode_codes(g, codes)
    return {
        "pack_gb_per_s": weights / 1e9 / fastest(lambda: encode_codes(g, codes)),
        "unpack_gb_per_s": weights / 1e9 / fastest(lambda: decode_codes(g, stream)),
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("packing", __doc__, seeds=5)
    weights = WEIGHTS // 8 if bench.quick else WEIGHTS
    copied = np.zeros(weights, np.uint8)
    for seed in bench.seeds:
        measure = partial(bench.measure, f"{weights >> 20}M weights", seed=seed)
        measure("copy (bound)", run=lambda: {"pack_gb_per_s": weights / 1e9 / fastest(copied.copy)})
        for method, d, k, parity in (
            ("ssvq", 8, 16, False),
            ("ssvq", 8, 256, False),
            ("ssvq", 4, 16, False),
            ("ssvq", 8, 16, True),
            ("vq", 4, 64, False),
            ("vq", 8, 256, False),
        ):
            name = f"{method} d={d} k={k}{' parity' if parity else ''}"
            measure(name, run=partial(codebook_layer, method, d, k, parity, weights, seed))
        for method in ("int8", "int4", "int3", "int2"):
            measure(method, run=partial(scalar_layer, method, weights, seed))
    bench.finish()


if __name__ == "__main__":
    main()
