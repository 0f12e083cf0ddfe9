"""Speed of multiplying by packed weights, beside int8, dense weights and torch, from DRAM.

A work is a matrix of outputs by inputs, ``@m`` tokens, and ``@t`` threads where these are not one.
An arm is a format, or one of what it is compared with: ``int8`` is our own, as are ``fp32`` and
``bf16`` (``bench/dense``); ``torch-int8`` and ``torch-bf16`` are torch's linears. Behind ``@``
comes an instruction set where the best one is not meant. Rounding the activations, scaling the
outputs, and the call through torch are inside the time.

Samples are runs of about a millisecond, of all arms in a shuffled order, over 208 MB of matrices
of each in rotation, so that weights come from DRAM. A sample during which the system took the
processor away is dropped. ``microseconds`` is the median of a round; the table has the mean over
the rounds of ``--seeds`` and their spread. ``times_int8`` and ``share_of_read`` compare with int8
and with plain reading in the same round.
"""

import ctypes
import functools
import os
import random
import re
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from harness import Bench
from torch import Tensor

from vq.inference.kernels import ISAS, instruction_set, instruction_sets
from vq.inference.operator import packed_linear
from vq.inference.tiles import ROWS, Tiling
from vq.native import compiled

WORKS = (
    "4096x4096@m1", "2048x2048@m1", "4096x11008@m1", "1024x1024@m1", "4096x4096@m2",
    "4096x4096@m4", "4096x4096@m8", "4096x4096@m16", "4096x4096@m128", "4096x4096@m1@t2",
    "2048x2048@m1@t2", "4096x11008@m1@t2", "4096x4096@m128@t2",
)  # fmt: skip
#: Sub-vector length, codewords, bits, signs and group of each format, and its activations.
PACKED = {
    "int8": (1, 0, 8, 0, 0, "int8"),
    "ssvq-k16-d8": (8, 16, 4, 8, 0, "int8"),
    "ssvq-k16-d4": (4, 16, 4, 4, 0, "int8"),
    "ssvq-k256-d8": (8, 256, 8, 8, 0, "int8"),
    "ssvq-k16-d8-a16": (8, 16, 4, 8, 0, "int16"),
    "vq-k256-d4": (4, 256, 8, 0, 0, "int8"),
    "int4-g128": (1, 0, 4, 0, 128, "int8"),
}
DENSE = ("fp32", "bf16", "torch-int8", "torch-bf16")
#: With which the table is made if none are named; the portable path is for any processor, not fast.
USUAL = (*PACKED, *(f"ssvq-k16-d8@{isa}" for isa in ("avx2", "vnni", "neon")), *DENSE)
ROTATION = 208 << 20
SAMPLE = 1e-3

Arm = tuple[int, Callable[[int], object]]
"""Copies of a matrix in rotation, and one multiplication by the one of a number."""


def main() -> None:
    """Measure every work, all arms of it together."""
    arms = (*PACKED, *DENSE, *(f"{arm}@{isa}" for arm in PACKED for isa in ISAS))
    bench = Bench("kernels", __doc__, seeds=5, works=WORKS, arms=arms, usual=USUAL)
    os.environ.pop("SIGNBOOK_ISA", None)
    best = instruction_set()
    own = ("", *instruction_sets())
    chosen = [arm for arm in bench.arms if arm.partition("@")[2] in own]
    for work in bench.works:
        for seed in bench.seeds:
            together = functools.cache(partial(round_of, work, chosen, seed, bench.quick))
            for arm in chosen:
                bench.measure(work, arm, seed, lambda arm=arm, all_of=together: all_of()[arm])
    bench.finish(isa=best, cpu=processor())


def round_of(work: str, arms: Sequence[str], seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Metrics of all arms of a work, in one round."""
    outputs, inputs, tokens, threads = (
        int(n or 1) for n in re.fullmatch(r"(\d+)x(\d+)@m(\d+)(?:@t(\d+))?", work).groups()
    )
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    x = torch.randn(tokens, inputs)
    rotation = ROTATION // 8 if quick else ROTATION
    made: dict[str, Arm] = {"read": reader(outputs * inputs, threads, rotation)}
    for arm in dict.fromkeys(("int8", *arms)):
        made[arm] = arm_of(arm, outputs, x, threads, rotation)
    times = sampled(made, seed, 4 if quick else 40)
    size = {arm: nbytes(arm, outputs, inputs) for arm in made}
    read = size["read"] / times["read"]
    return {
        arm: {
            "microseconds": 1e6 * times[arm],
            "times_int8": times["int8"] / times[arm],
            "share_of_read": size[arm] / times[arm] / read,
            "bits_per_weight": 8 * size[arm] / outputs / inputs,
        }
        for arm in arms
    }


def sampled(arms: Mapping[str, Arm], seed: int, samples: int) -> dict[str, float]:
    """Median seconds of a call of every arm; samples are interleaved, in a shuffled order."""
    calls, at = {}, dict.fromkeys(arms, 0)
    for arm, (_, run) in arms.items():
        run(0)
        start = time.perf_counter()
        run(1)
        calls[arm] = max(1, round(SAMPLE / (time.perf_counter() - start)))
    kept: dict[str, list[float]] = {arm: [] for arm in arms}
    disturbed: dict[str, list[float]] = {arm: [] for arm in arms}
    order, shuffle = list(arms), random.Random(seed)
    for _ in range(samples):
        shuffle.shuffle(order)
        for arm in order:
            copies, run = arms[arm]
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start = time.perf_counter()
            for _ in range(calls[arm]):
                run(at[arm])
                at[arm] = (at[arm] + 1) % copies
            seconds = (time.perf_counter() - start) / calls[arm]
            switched = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw > before
            (disturbed if switched else kept)[arm].append(seconds)
    return {arm: statistics.median(kept[arm] or disturbed[arm]) for arm in arms}


def arm_of(arm: str, outputs: int, x: Tensor, threads: int, rotation: int) -> Arm:
    """An arm, with its matrices."""
    name, _, isa = arm.partition("@")
    inputs = x.shape[1]
    copies = max(2, -(-rotation // int(nbytes(name, outputs, inputs))))
    if name in PACKED:
        return packed_arm(name, isa, outputs, x, copies)
    if name == "torch-bf16":
        own = x.bfloat16()
        weights = [torch.randn(outputs, inputs).bfloat16() for _ in range(copies)]
        return copies, lambda at: torch.nn.functional.linear(own, weights[at])
    if name == "torch-int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is another door by now
            layers = [
                torch.ao.quantization.quantize_dynamic(
                    torch.nn.Sequential(torch.nn.Linear(inputs, outputs, bias=False)),
                    dtype=torch.qint8,
                )
                for _ in range(copies)
            ]
        return copies, lambda at: layers[at](x)
    kind = torch.float32 if name == "fp32" else torch.bfloat16
    weights = [torch.randn(outputs * inputs).to(kind) for _ in range(copies)]
    y = torch.empty(len(x), outputs)
    function = getattr(dense(), f"signbook_{name}")
    sizes = [ctypes.c_int64(n) for n in (len(x), outputs, inputs, threads)]

    def run(at: int) -> object:
        places = (ctypes.c_void_p(t.data_ptr()) for t in (x, weights[at], y))
        return function(*places, *sizes)

    return copies, run


def packed_arm(name: str, isa: str, outputs: int, x: Tensor, copies: int) -> Arm:
    """An arm that multiplies by packed weights, of random bits."""
    d, k, bits, signs, group, activations = PACKED[name]
    t = Tiling(outputs, x.shape[1], d, k, bits, signs, 0, group)
    first = torch.randint(256, (t.nbytes,), dtype=torch.uint8)
    tiles = [first.clone() for _ in range(copies)]
    book = torch.randint(128, (k, d), dtype=torch.int8)
    scale = torch.rand(t.blocks, len(t.ranges), ROWS).half() if group else torch.rand(outputs)
    tiling = list(t)

    def run(at: int) -> object:
        return packed_linear(x, tiles[at], book, scale, None, None, tiling, activations)

    def forced(at: int) -> object:
        os.environ["SIGNBOOK_ISA"] = isa
        try:
            return run(at)
        finally:
            del os.environ["SIGNBOOK_ISA"]

    return copies, forced if isa else run


def reader(count: int, threads: int, rotation: int) -> Arm:
    """Reading as many bytes as int8 has, from the rotation."""
    copies = max(2, -(-rotation // count))
    blocks = [torch.ones(count, dtype=torch.uint8) for _ in range(copies)]
    function, sizes = dense().signbook_read, [ctypes.c_int64(n) for n in (count, threads)]
    return copies, lambda at: function(ctypes.c_void_p(blocks[at].data_ptr()), *sizes)


def dense() -> ctypes.CDLL:
    """What is compared with, compiled for this processor."""
    flags = ("-march=native", "-ffp-contract=fast", "-fopenmp")
    return compiled("dense", Path(__file__).parent / "dense" / "dense.c", *flags)


def nbytes(arm: str, outputs: int, inputs: int) -> float:
    """Bytes of weights, with scales of groups, that an arm reads."""
    name = arm.partition("@")[0]
    if name not in PACKED:
        return outputs * inputs * {"fp32": 4, "bf16": 2, "torch-bf16": 2}.get(name, 1)
    d, _, bits, signs, group, _ = PACKED[name]
    return outputs * inputs * ((bits + signs) / d / 8 + (2 / group if group else 0))


def processor() -> str:
    """What the system calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
