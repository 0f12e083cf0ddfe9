"""Containers in the architecture of a name."""

import pytest
import torch

import vq
from signbook.loading import check_activations, load_model
from signbook.naming import resolve_model
from vq.errors import ConfigError
from vq.inference.modules import packed_layers

MODEL = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"


@pytest.fixture
def file(tmp_path):
    model = resolve_model(MODEL)
    vq.compress_(model, vq.Recipe({"blocks.*": vq.SSVQ(d=8, k=16)}), progress=False)
    vq.save(model, tmp_path / "file", progress=False)
    return tmp_path / "file"


def test_layers_are_dense_or_packed(file):
    dense, packed = load_model(MODEL, file=file), load_model(MODEL, file=file, packed=True)
    rounded = load_model(MODEL, file=file, packed=True, activations="int16")
    assert not list(packed_layers(dense))
    layers = dict(packed_layers(packed))
    assert len(layers) == 4 and {w.activations for w in layers.values()} == {"int8"}
    assert {w.activations for _, w in packed_layers(rounded)} == {"int16"}
    for name in layers:
        weight = packed.get_submodule(name).weight
        assert torch.equal(weight, dense.get_submodule(name).weight)


@pytest.mark.parametrize(
    ("packed", "activations", "message"),
    [
        (False, "int8", "^--activations must come with --packed, whose layers round them"),
        (True, "int4", "^activations must be one of int8, int16, exact, not 'int4'"),
    ],
)
def test_what_activations_cannot_be(packed, activations, message):
    with pytest.raises(ConfigError, match=message):
        check_activations(packed, activations)
    check_activations(packed, None)


def test_without_a_container_there_is_nothing_to_pack(file, tmp_path):
    message = "^--packed must come with --file, the container whose layers stay packed, or with a"
    for name, weights in ((MODEL, None), (f"hf:{tmp_path}", None), (f"hf:{tmp_path}", file)):
        with pytest.raises(ConfigError, match=message):
            load_model(name, weights, packed=True)
