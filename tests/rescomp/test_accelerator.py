"""What solvers chose, through the integer graph and the accelerator, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vq
from hwsim import simulate
from rescomp import GPTAQR, GPTQ, QEP, Fitting, quantize_
from tests.hwsim.programs import SMALL, Net
from vq import SSVQ, Int2, Int3, Int4, Int8, Recipe
from vq.container import open_container
from vq.formats.model import compressed_layers
from vq.integer import add_integer

pytestmark = pytest.mark.rtl
TILE = {"tile_outputs": SMALL.rows}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (Int4(group=16, **TILE), GPTQ()),
        (Int3(group=8, zeros=True, **TILE), QEP()),
        (Int2(group=8, **TILE), GPTAQR()),
    ],
    ids=str,
)
def test_solved_layers_run_bit_exactly(tmp_path: Path, kind, method) -> None:
    torch.manual_seed(0)
    model, file = Net().eval(), tmp_path / "net.vq.safetensors"
    data = [torch.randn(16, 3, 13, 12) for _ in range(2)]
    # The accelerator reads zeros of rows that fill whole words only.
    narrow = dict.fromkeys(("stem", "depth", "group"), replace(kind, zeros=False))
    quantize_(model, data, Recipe({"*": kind, **narrow, "fc2": Int8(**TILE)}), method)
    vq.save(model, file)
    add_integer(file, Net(), data)
    document = simulate(file, config=SMALL, memory="ideal:bytes_per_cycle=8,latency=20")
    run = document["runs"]["compressed"]
    assert run["bit_exact"] is True and document["runs"]["int8"]["bit_exact"] is True
    found = [row["method"] for row in run["layers"] if row["method"] != "none"]
    assert found == [kind.name] * 6 + ["int8"]
    with open_container(file) as container:
        for layer in compressed_layers(model):
            weight = layer.module.weight.detach().numpy()
            assert np.array_equal(container.weight(layer.name), weight), layer.name


class KeysAndValues(nn.Module):
    """Two projections of one stream, of the shapes that SmolLM2-135M has."""

    def __init__(self) -> None:
        super().__init__()
        self.k_proj = nn.Linear(576, 192, bias=False)
        self.v_proj = nn.Linear(576, 192, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.k_proj(x) * self.v_proj(x)


def test_codebooks_that_compensate_run_bit_exactly(tmp_path: Path) -> None:
    """Solved as one matrix with one codebook, which the accelerator loads once for both."""
    torch.manual_seed(0)
    model, file = KeysAndValues(), tmp_path / "kv.vq.safetensors"
    kind = SSVQ(d=8, k=256, scale="output", shared="kv", **TILE)
    data = [torch.randn(320, 576) @ torch.randn(576, 576) / 24 for _ in range(2)]
    quantize_(model, data, Recipe({"*": kind}), QEP(), fitting=Fitting(sweeps=1))
    vq.save(model, file)
    run = simulate(file, config=SMALL, methods=())["runs"]["compressed"]
    assert run["bit_exact"] is True
    assert [row["method"] for row in run["layers"]] == ["ssvq"] * 2
    assert run["bytes_by"]["codebooks"] == 256 * 8
    assert run["bytes_by"]["weights"] == 2 * 192 * 576 * 2 // 8
    with open_container(file) as container:
        for layer in compressed_layers(model):
            weight = layer.module.weight.detach().numpy()
            assert np.array_equal(container.weight(layer.name), weight), layer.name
