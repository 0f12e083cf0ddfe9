"""VQ4ALL: a network is constructed from a book that stays as it is."""

import numpy as np
import torch

import vq
from tests.vq.methods.models import distance, pair
from tests.vq.models import batches
from vq.container.rom import roms_of
from vq.formats.model import compressed_layers
from vq.methods.vq4all import vq4all_


def test_a_network_is_constructed_from_a_fixed_book(tmp_path):
    book = np.random.default_rng(0).normal(0, 40, (64, 4)).clip(-127, 127).astype(np.int8)
    np.save(tmp_path / "book.npy", book)
    kind = vq.VQ(codebook=f"rom:{tmp_path / 'book.npy'}", scale="output")
    found = {}
    for n in (1, 4):
        model, teacher = pair(kind)
        start = distance(model, teacher)
        result = vq4all_(model, batches(), teacher, n=n, epochs=12, seed=0)
        found[n] = distance(model, teacher)
        assert found[n] < start
        for layer in compressed_layers(model):
            assert (layer.weight.integers(None).numpy() == book).all()
    assert found[4] < 0.8 * found[1]
    assert result.rules["candidates"][-1]["decided"] == 1
    file = tmp_path / "model.vq.safetensors"
    assert vq.save(model, file).file_bytes < 20_000  # without the book
    loaded = vq.load(file, into=teacher, rom=roms_of(str(tmp_path / "book.npy")))
    for layer in compressed_layers(model):
        assert torch.equal(loaded.get_submodule(layer.name).weight, layer.module.weight)
