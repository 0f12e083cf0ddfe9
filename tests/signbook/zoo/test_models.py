"""Architectures: order of the layers, shapes, and what they refuse."""

import pytest
import torch
from torch import nn

from signbook.zoo.ddpm import ddpm
from signbook.zoo.llama import Llama, LlamaConfig, stories260k
from signbook.zoo.resnet import resnet20
from signbook.zoo.resnet8 import resnet8
from signbook.zoo.tiniest import tiniest
from vq.errors import ConfigError

IMAGES = (torch.rand(2, 3, 32, 32),)
MODELS = [
    (resnet20, IMAGES, (2, 10)),
    (tiniest, IMAGES, (2, 10)),
    (resnet8, IMAGES, (2, 10)),
    (stories260k, (torch.randint(0, 512, (2, 9)),), (2, 9, 512)),
    (ddpm, (torch.rand(2, 1, 28, 28), torch.tensor([1, 1000])), (2, 1, 28, 28)),
]


@pytest.mark.parametrize(("factory", "inputs", "shape"), MODELS)
def test_layers_are_registered_in_the_order_in_which_they_run(factory, inputs, shape):
    model = factory().eval()
    layers = {m: n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    ran = []
    for module in layers:
        module.register_forward_hook(lambda m, *_: ran.append(layers[m]))
    with torch.no_grad():
        assert model(*inputs).shape == shape
    assert ran == list(layers.values())


@pytest.mark.parametrize("factory", [resnet20, tiniest, resnet8])
def test_preprocessing_is_not_part_of_the_weights(factory):
    assert not [name for name in factory().state_dict() if name.startswith("normalize")]


def test_llama_looks_only_back():
    model = stories260k().eval()
    tokens = torch.randint(3, 512, (1, 12))
    changed = tokens.clone()
    changed[0, 8] = (changed[0, 8] + 1) % 512
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_llama_depends_on_distance_not_on_place():
    """Rotary positions: attention of one head, moved by five places, is the same."""
    from signbook.zoo.llama import _rotate, _rotations

    cos, sin = _rotations(LlamaConfig())
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [
        (_rotate(q, cos[i : i + 1], sin[i : i + 1]) * _rotate(k, cos[j : j + 1], sin[j : j + 1]))
        .sum()
        .item()
        for i, j in ((7, 3), (12, 8))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_llama_refuses_more_than_its_context():
    model = Llama(LlamaConfig(layers=1, context=8))
    with pytest.raises(ConfigError, match="tokens must be at most 8, not 9"):
        model(torch.zeros(1, 9, dtype=torch.int64))


def test_resnet8_pads_strided_convolutions_at_the_right_and_bottom():
    block = resnet8().block2
    assert block.pad(torch.ones(1, 1, 2, 2))[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert block.conv1.padding == (0, 0)
