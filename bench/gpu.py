"""Speed of multiplying by packed weights on a GPU, beside torch's fp16 and int8, from its memory.

A work is a matrix of Llama-7B, outputs by inputs, and ``@m`` tokens in fp16. An arm is a format of
``bench/kernels.py`` whose activations are not rounded, or with ``-a8`` behind it rounded to 8 bits;
``torch-fp16`` is torch's linear, ``torch-int8`` its product of int8 matrices, which takes no less
than 24 tokens and is given as many.

Calls are captured in a graph for each arm, over 512 MB of matrices in rotation, so that weights
come from memory and no time of Python counts; graphs are replayed in a shuffled order.
``microseconds`` is the median of a round. ``share_of_copy`` compares the bytes of weights that are
read in a second with those that a copy of 512 MB reads and writes, in the same round.
"""

import functools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from harness import Bench
from kernels import PACKED, Arm, nbytes
from torch import Tensor

from vq.errors import ConfigError
from vq.inference.operator import packed_linear
from vq.inference.tiles import ROWS, Tiling

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008), (32000, 4096))
WORKS = tuple(f"{o}x{i}@m{m}" for m in (1, 4, 16, 128) for o, i in SHAPES)
CODEBOOKS = ("ssvq-k16-d8", "ssvq-k16-d4", "ssvq-k256-d8", "vq-k256-d4")
ARMS = (*CODEBOOKS, *(f"{arm}-a8" for arm in CODEBOOKS), "int4-g128", "torch-fp16", "torch-int8")
ROTATION = 512 << 20
#: Fewer tokens torch refuses to multiply as int8 matrices.
LEAST_INT8 = 24


def main() -> None:
    """Measure every work, all arms of it together."""
    bench = Bench("gpu", __doc__, seeds=5, works=WORKS, arms=ARMS)
    if not torch.cuda.is_available():
        raise ConfigError("this bench must have a CUDA device, and this machine has none")
    for work in bench.works:
        for seed in bench.seeds:
            together = functools.cache(partial(round_of, work, bench.arms, seed, bench.quick))
            for arm in bench.arms:
                bench.measure(work, arm, seed, lambda arm=arm, all_of=together: all_of()[arm])
    bench.finish(gpu=torch.cuda.get_device_name(), cuda=str(torch.version.cuda))


def round_of(work: str, arms: Sequence[str], seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Metrics of all arms of a work, in one round."""
    shape, tokens = work.split("@m")
    outputs, inputs = map(int, shape.split("x"))
    torch.manual_seed(seed)
    x = torch.randn(int(tokens), inputs, device="cuda").half()
    rotation = ROTATION // 8 if quick else ROTATION
    first = torch.empty(rotation, dtype=torch.uint8, device="cuda")
    second = torch.empty_like(first)
    made: dict[str, Arm] = {"copy": (1, lambda at: second.copy_(first))}
    for arm in dict.fromkeys(("torch-fp16", "torch-int8", *arms)):
        made[arm] = arm_of(arm, outputs, x, rotation)
    calls = {arm: captured(*made[arm]) for arm in made}
    times = sampled(calls, seed, 4 if quick else 40)
    seconds = {arm: times[arm] / made[arm][0] for arm in made}
    copied = 2 * rotation / seconds["copy"]
    size = {arm: bytes_of(arm, outputs, inputs) for arm in arms}
    return {
        arm: {
            "microseconds": 1e6 * seconds[arm],
            "gigabytes_per_second": size[arm] / seconds[arm] / 1e9,
            "share_of_copy": size[arm] / seconds[arm] / copied,
            "times_fp16": seconds["torch-fp16"] / seconds[arm],
            "times_int8": seconds["torch-int8"] / seconds[arm],
            "bits_per_weight": 8 * size[arm] / outputs / inputs,
        }
        for arm in arms
    }


def captured(copies: int, run: Callable[[int], object]) -> Callable[[], None]:
    """One call for each matrix, as a graph that is replayed."""
    for _ in range(2):
        run(0)  # compiles what it needs
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for at in range(copies):
            run(at)
    return graph.replay


def sampled(calls: Mapping[str, Callable[[], None]], seed: int, samples: int) -> dict[str, float]:
    """Median seconds of every arm's graph; samples are interleaved, in a shuffled order."""
    found: dict[str, list[float]] = {arm: [] for arm in calls}
    order, shuffle = list(calls), random.Random(seed)
    for _ in range(samples):
        shuffle.shuffle(order)
        for arm in order:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            calls[arm]()
            end.record()
            end.synchronize()
            found[arm].append(start.elapsed_time(end) / 1e3)
    return {arm: statistics.median(times) for arm, times in found.items()}


def arm_of(arm: str, outputs: int, x: Tensor, rotation: int) -> Arm:
    """An arm, with its matrices, on the device of ``x``."""
    inputs, device = x.shape[1], x.device
    copies = max(2, -(-rotation // int(bytes_of(arm, outputs, inputs))))
    if arm == "torch-fp16":
        dense = [torch.randn(outputs, inputs, device=device).half() for _ in range(copies)]
        return copies, lambda at: torch.nn.functional.linear(x, dense[at])
    if arm == "torch-int8":
        rows = max(LEAST_INT8, len(x))
        whole = torch.randint(-127, 128, (rows, inputs), dtype=torch.int8, device=device)
        first = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8, device=device)
        int8 = [first.clone() for _ in range(copies)]
        return copies, lambda at: torch._int_mm(whole, int8[at].T)
    name = arm.removesuffix("-a8")
    activations = "exact" if name == arm else "int8"
    d, k, bits, signs, group, _ = PACKED[name]
    t = Tiling(outputs, inputs, d, k, bits, signs, 0, group)
    packed = torch.randint(256, (t.nbytes,), dtype=torch.uint8, device=device)
    tiles = [packed.clone() for _ in range(copies)]
    book = torch.randint(128, (k, d), dtype=torch.int8, device=device)
    groups = t.blocks, len(t.ranges), ROWS
    scale = torch.rand(groups).half() if group else torch.rand(outputs)
    scale, tiling = scale.to(device) / 1000, list(t)
    return copies, lambda at: packed_linear(
        x, tiles[at], book, scale, None, None, tiling, activations
    )


def bytes_of(arm: str, outputs: int, inputs: int) -> float:
    """Bytes of weights, with scales of groups, that an arm reads."""
    if arm == "torch-fp16":
        return 2 * outputs * inputs
    return nbytes(arm.removesuffix("-a8"), outputs, inputs)


if __name__ == "__main__":
    main()
