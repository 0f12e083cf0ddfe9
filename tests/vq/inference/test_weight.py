"""A weight that stays packed: its bytes come back, and casts leave them alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.vq.container.samples import one_of_each, samples
from tests.vq.inference.layers import FORMS, weight_of
from vq.container import open_container, write_container
from vq.errors import ConfigError
from vq.inference.weight import PackedWeight


def same_layer(a, b) -> bool:
    return a.geometry == b.geometry and all(
        np.array_equal(getattr(a, field), getattr(b, field))
        for field in ("stream", "scale", "codebook", "group_scales", "group_zeros")
        if getattr(a, field) is not None or getattr(b, field) is not None
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(samples())
def test_any_layer_comes_back(sample):
    assert same_layer(weight_of(sample).to_layer(sample.name), sample.layer)


def test_a_file_comes_back_with_its_shared_codebooks(tmp_path):
    layers = [sample.layer for sample in one_of_each()]
    write_container(tmp_path / "a", layers)
    books: dict[str, torch.Tensor] = {}
    with open_container(tmp_path / "a") as file:
        names = [entry.geometry.name for entry in file.layers]
        weights = [PackedWeight.stored(file, name, torch.float32, "int8", books) for name in names]
        for name, weight in zip(names, weights, strict=True):
            assert torch.equal(weight.forward(), torch.from_numpy(file.weight(name)))
    assert weights[0].codebook is weights[1].codebook
    write_container(
        tmp_path / "b", [w.to_layer(name) for name, w in zip(names, weights, strict=True)]
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_name_is_that_of_its_codebook_too():
    layer = weight_of(FORMS["nibbles8"]()).to_layer("b")
    assert (layer.geometry.name, layer.geometry.codebook) == ("b", "b.codebook")


@pytest.mark.parametrize("form", ["nibbles8", "int4"])
def test_casts_leave_the_bytes_alone(form):
    sample = FORMS[form]()
    weight = weight_of(sample)
    state = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
    weight.to(torch.bfloat16).half()
    assert all(torch.equal(weight.state_dict()[name], t) for name, t in state.items())
    assert weight.scale.dtype == state["scale"].dtype
    assert weight.forward().dtype == torch.float16
    assert same_layer(weight.to_layer(sample.name), sample.layer)


def test_a_decoded_weight_refuses_writes():
    with pytest.raises(ConfigError, match="must not be assigned to or changed in place"):
        weight_of(FORMS["int8"]()).forward().add_(1)
