"""The bench of GPUs: without one it says so, and its arms are what it claims."""

import sys

import pytest
import torch

from bench import gpu
from vq.errors import ConfigError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    with pytest.raises(ConfigError, match=r"^this bench must have a CUDA device, and this machine"):
        gpu.main()


@pytest.mark.parametrize("arm", gpu.ARMS)
def test_arms_run(arm):
    """On the CPU, where the operators have kernels, too."""
    x = torch.randn(2, 256).half()
    copies, run = gpu.arm_of(arm, 32, x, 65536)
    assert copies * gpu.bytes_of(arm, 32, 256) >= 65536
    y = run(copies - 1)
    assert y.shape == (gpu.LEAST_INT8 if arm == "torch-int8" else 2, 32)
    assert y.float().isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_round():
    found = gpu.round_of("4096x4096@m1", ["ssvq-k16-d8", "torch-fp16"], seed=0, quick=True)
    assert found["torch-fp16"]["times_fp16"] == 1 and found["ssvq-k16-d8"]["microseconds"] > 0
