"""The bench of kernels: its names, and the bytes that it counts."""

import pytest
import torch

from bench import kernels
from vq.inference.tiles import Tiling


@pytest.mark.parametrize("arm", kernels.PACKED)
def test_bytes_are_those_of_the_tiles(arm):
    d, k, bits, signs, group, _ = kernels.PACKED[arm]
    t = Tiling(256, 512, d, k, bits, signs, 0, group)
    scales = 2 * t.blocks * 16 * len(t.ranges) if group else 0
    assert kernels.nbytes(f"{arm}@avx2", 256, 512) == t.nbytes + scales


def test_samples_are_interleaved_and_rotate():
    calls: list[tuple[str, int]] = []
    arms = {
        name: (copies, lambda at, name=name: calls.append((name, at)))
        for name, copies in (("a", 3), ("b", 2))
    }
    times = kernels.sampled(arms, seed=0, samples=2)
    assert times.keys() == {"a", "b"} and all(seconds > 0 for seconds in times.values())
    assert {at for name, at in calls if name == "a"} == {0, 1, 2}


@pytest.mark.parametrize("arm", ["int8", "ssvq-k16-d8-a16", "int4-g128", "fp32", "bf16", "read"])
def test_arms_run(arm):
    x = torch.randn(2, 64)
    copies, run = (
        kernels.reader(1024, 1, 1) if arm == "read" else kernels.arm_of(arm, 32, x, 1, 4096)
    )
    assert copies >= 2
    run(copies - 1)
