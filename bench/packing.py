"""Speed of packing and unpacking streams, in gigabytes of int8-equivalent weights per second.

One layer of 16M weights, one thread. ``pack`` makes a stream from indices and signs (or codes),
``unpack`` checks a stream and decodes it to int8 weights (or codes) in stream order, ``order``
brings those into the order of the matrix. A figure is the median of nine calls, ``slowest`` the
slowest unpacking of the nine; the table has their means over ``--seeds`` rounds of new data.
Seconds are those that the thread ran, so that other processes take their share of the caches but
not of the time.

The bound is memory: unpacking reads the stream and writes a byte per weight to fresh memory, and
copying a byte array of that size shows how fast the machine reads and writes. ``% of bound`` is the
share of it that unpacking reaches.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from harness import Bench
from numpy.typing import NDArray

from vq.container import Geometry
from vq.container.codec import decode_codes, decode_subvectors, encode_codes, encode_subvectors
from vq.container.order import from_stream

WEIGHTS = 1 << 24


def rates(weights: int, run: Callable[[], object]) -> list[float]:
    """Gigabytes per second of nine calls, the slowest first; one call before them is not timed."""
    run()
    times = []
    for _ in range(9):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return sorted(weights / 1e9 / seconds for seconds in times)


def measured(
    g: Geometry,
    pack: Callable[[], NDArray[np.uint8]],
    unpack: Callable[[], NDArray[np.generic]],
    moved_per_s: float,
) -> dict[str, float]:
    """The table's row of one layer; ``moved_per_s`` is what memory can read and write, in GB/s."""
    items = unpack().reshape(g.N, g.d)
    unpacked = rates(g.weights, unpack)
    bound = moved_per_s * g.weights / (g.weights + g.stream_bytes)
    return {
        "pack": statistics.median(rates(g.weights, pack)),
        "unpack": statistics.median(unpacked),
        "slowest": unpacked[0],
        "% of bound": 100 * statistics.median(unpacked) / bound,
        "order": statistics.median(
            rates(g.weights, lambda: from_stream(items, *g.grid, g.tile)),
        ),
    }


def codebook_layer(
    method: str, d: int, k: int, parity: bool, weights: int, moved_per_s: float, seed: int
) -> dict[str, float]:
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
    return measured(
        g,
        lambda: encode_subvectors(g, indices, signs),
        lambda: decode_subvectors(g, stream, codebook),
        moved_per_s,
    )


def scalar_layer(method: str, weights: int, moved_per_s: float, seed: int) -> dict[str, float]:
    """Pack and unpack random codes."""
    shape = (weights // 4096, 4096)
    if method == "int8":
        g = Geometry("w", "linear", shape, "int8")
    else:
        g = Geometry("w", "linear", shape, method, scales=0, group=128)
    codes = np.random.default_rng(seed).integers(0, 1 << g.b, weights).astype(np.uint8)
    stream = encode_codes(g, codes)
    row = measured(g, lambda: encode_codes(g, codes), lambda: decode_codes(g, stream), moved_per_s)
    if method == "int8":  # nothing to unpack: the bytes are returned as they lie in the stream
        return {name: row[name] for name in ("pack", "order")}
    return row


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("packing", __doc__, seeds=5)
    weights = WEIGHTS // 8 if bench.quick else WEIGHTS
    source = np.zeros(weights, np.uint8)
    for seed in bench.seeds:
        measure = partial(bench.measure, f"{weights >> 20}M weights", seed=seed)
        copy = measure(
            "copying bytes",
            run=lambda: {"unpack": statistics.median(rates(weights, source.copy))},
        )
        moved_per_s = 2 * copy["unpack"]  # read and written
        for method, d, k, parity in (
            ("ssvq", 8, 16, False),
            ("ssvq", 8, 256, False),
            ("ssvq", 4, 16, False),
            ("ssvq", 8, 16, True),
            ("ssvq", 4, 16, True),
            ("ssvq", 16, 256, True),
            ("vq", 2, 16, False),
            ("vq", 4, 64, False),
            ("vq", 8, 256, False),
            ("vq", 8, 4096, False),
        ):
            name = f"{method} d={d} k={k}{' parity' if parity else ''}"
            run = partial(codebook_layer, method, d, k, parity, weights, moved_per_s, seed)
            measure(name, run=run)
        for method in ("int8", "int4", "int3", "int2"):
            measure(method, run=partial(scalar_layer, method, weights, moved_per_s, seed))
    bench.finish()


if __name__ == "__main__":
    main()
