"""The torch decoder gives the numpy decoder's bits, and needs no compressor."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import vq
from tests.golden import make
from tests.vq.container.forge import Forge
from tests.vq.container.samples import one_of_each, samples
from tests.vq.models import Net
from vq import SSVQ, VQ, Int8, Recipe
from vq.container import ContainerError, open_container, write_container
from vq.inference.decode import decode_integers, decode_weight


def equal_bits(a: torch.Tensor, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == np.ascontiguousarray(b).tobytes()


def test_golden_file():
    stored = np.load(make.WEIGHTS)
    with open_container(make.FILE, rom=make.rom()) as file:
        assert {e.geometry.method for e in file.layers} >= {"ssvq", "vq", "int8", "int4", "int2"}
        for entry in file.layers:
            name = entry.geometry.name
            assert equal_bits(decode_weight(file, name), stored[name]), name
            assert equal_bits(decode_integers(file, name), file.integers(name)), name


@settings(derandomize=True, deadline=None, max_examples=60)
@given(samples())
def test_any_layer(tmp_path_factory, sample):
    path = tmp_path_factory.mktemp("decode") / "one.vq.safetensors"
    write_container(path, [sample.layer])
    with open_container(path) as file:
        assert equal_bits(decode_weight(file, sample.name), sample.weight)


@pytest.mark.parametrize(
    ("layer", "byte", "message"),
    [
        ("a", 10, "index padding must be zero bits"),
        ("a", -1, "sign padding must be zero bits"),
        ("e", -1, "weight padding must be zero bits"),
        ("f", -1, "code padding must be zero bits"),
    ],
)
def test_damage_is_refused_like_in_numpy(tmp_path, layer, byte, message):
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [s.layer for s in one_of_each()])
    forge = Forge(path.read_bytes())
    start, end = forge.table[f"{layer}.stream"]["data_offsets"]
    forge.data[(start if byte >= 0 else end) + byte] ^= 0x80
    with open_container(forge.write(tmp_path)) as file:
        for decode in (file.weight, lambda name: decode_weight(file, name)):
            with pytest.raises(ContainerError, match=rf"safetensors: layer '{layer}': {message}"):
                decode(layer)


def test_index_out_of_range_is_refused(tmp_path):
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [s.layer for s in one_of_each()])
    forge = Forge(path.read_bytes())
    start = forge.start("a.stream")
    for plane in range(3):
        forge.data[start + 64 * plane] |= 1
    with (
        open_container(forge.write(tmp_path)) as file,
        pytest.raises(
            ContainerError, match="safetensors: layer 'a': index must be below k = 5, not 7"
        ),
    ):
        decode_weight(file, "a")


@pytest.fixture
def saved(tmp_path):
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ(d=4, k=8), "fc2": VQ(d=4, k=8), "head": Int8()}))
    path = tmp_path / "net.vq.safetensors"
    vq.save(model, path)
    return model, path


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
def test_load_on_a_device(saved, device):
    model, path = saved
    loaded = vq.load(path, into=Net(), device=device)
    for name in ("fc1", "fc2", "head"):
        weight = loaded.get_submodule(name).weight
        assert weight.device.type == device
        assert torch.equal(weight.cpu(), model.get_submodule(name).weight)


def test_loading_needs_no_compressor(saved):
    """With faiss blocked, a model is loaded, decoded and run."""
    _, path = saved
    code = f"""
import sys
sys.modules["faiss"] = None
import torch, vq
from tests.vq.models import Net
model = vq.load({str(path)!r}, into=Net()).eval()
assert model(torch.ones(2, 16)).isfinite().all()
assert "vq.clustering.kmeans" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
