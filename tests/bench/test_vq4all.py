"""The bench of VQ4ALL: equal bits with everything counted, and training that goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bench.vq4all as study
from bench.quantised import bits_of
from signbook.data.images import Images
from signbook.zoo import resnet, resnet8, tiniest
from vq.methods.vq4all import RATES

NETWORKS = {
    "resnet20": resnet.resnet20,
    "resnet44": resnet.resnet44,
    "resnet8": resnet8.resnet8,
    "tiniest": tiniest.tiniest,
}


def made(names, images):
    torch.manual_seed(0)
    networks = {name: NETWORKS[name]().eval() for name in names}
    x, y = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8), torch.arange(images) % 10
    some = [(x.float() / 255, y)]
    return study.Study(networks, Images(x, y), some, some, 1, Path())


def test_arms_are_equal_in_bits_and_compress_sixteen_times():
    one = made(NETWORKS, 2)
    sizes = [sum(g.weights for g in study._layers_of(m)) for m in one.networks.values()]

    def all_together(arm):
        each = [bits_of(m, one.recipe(name, arm, 0)) for name, m in one.networks.items()]
        bits = np.average(each, weights=sizes)
        alike = {name: {"top1": 0.0, "bits_per_weight": bits} for name in one.networks}
        return one.together(arm, 0, alike)["bits_per_weight"]

    own, shared, signs = (all_together(arm) for arm in ("per-layer", "vq4all", "vq4all+signs"))
    assert signs <= shared <= own <= 1.02 * shared <= 2


def test_training_goes_on_from_its_checkpoints(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "BATCH", 4)
    one = made(["resnet8"], 8)
    first = one.trained("resnet8", "vq4all", RATES, 0, 1, tmp_path)
    assert any(tmp_path.glob("step-*"))
    again = one.trained("resnet8", "vq4all", RATES, 0, 1, tmp_path)
    assert again[1]["moved"] == first[1]["moved"] > 0
    ends = [list(model.state_dict().values()) for model, _ in (first, again)]
    assert all(map(torch.equal, *ends))
    found = one.together("fp32", 0, {"resnet8": {"top1": 0.5}, "tiniest": {"top1": 0.7}})
    assert found == {"top1": pytest.approx(0.6)}
