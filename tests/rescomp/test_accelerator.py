"""What solvers chose, through the integer graph and the accelerator, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vq
from hwsim import simulate
from rescomp import GPTAQR, GPTQ, QEP, quantize_
from tests.hwsim.programs import SMALL, Net
from vq import Int2, Int3, Int4, Int8, Recipe
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
