"""Which layers a GPU multiplies, and what it is asked for."""

import pytest
import torch

from vq.inference import gpu
from vq.inference.tiles import Tiling


def test_what_programs_serve():
    codebook = Tiling(16, 64, 8, 16, 4, 8, 0, 0)
    assert gpu.serves(codebook) and gpu.multiplies(codebook)
    assert gpu.multiplies(codebook._replace(k=4096, bits=12))
    assert not gpu.serves(codebook._replace(d=64, signs=64))  # its signs fit no word
    for decoded in (
        codebook._replace(out=1),
        codebook._replace(inputs=1 << 18),  # whose sums fit no word
        Tiling(16, 64, 1, 0, 4, 0, 0, 32),
    ):
        assert gpu.serves(decoded) and not gpu.multiplies(decoded)


@pytest.mark.parametrize(("outputs", "tokens"), [(4096, 1), (11008, 16), (64, 3)])
def test_programs_share_all_columns(outputs, tokens, monkeypatch):
    """Of every launch: the parts cover the columns, and none of them is empty."""
    seen = {}

    def keep(name, grid, *values, **known):
        seen.update(grid=grid, span=values[9], rows=known["ROWS"])

    monkeypatch.setattr(gpu, "_launch", keep)
    t = Tiling(outputs, 4096, 8, 16, 4, 8, 0, 0)
    partial = gpu._products(
        torch.empty(tokens, 4096, dtype=torch.int8), t, torch.empty(0), torch.empty(0)
    )
    blocks, splits, parts = seen["grid"]
    assert partial.shape == (splits, tokens, outputs) and partial.dtype == torch.int32
    assert blocks == outputs // 16 and parts * seen["rows"] >= tokens
    assert (splits - 1) * seen["span"] < 4096 // 8 <= splits * seen["span"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_has_all_that_programs_need():
    gpu.require(torch.device("cuda", torch.cuda.current_device()))
