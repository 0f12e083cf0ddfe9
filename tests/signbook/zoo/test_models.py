"""Architectures: order of the layers, shapes, and what they refuse."""

import pytest
import torch
from torch import nn

from signbook.zoo import dit, judge
from signbook.zoo.ddpm import ddpm
from signbook.zoo.efficientnet import EfficientNetLite0
from signbook.zoo.llama import stories260k
from signbook.zoo.resnet import resnet20
from signbook.zoo.resnet8 import resnet8
from signbook.zoo.tiniest import tiniest

IMAGES = (torch.rand(2, 3, 32, 32),)
MODELS = [
    (resnet20, IMAGES, (2, 10)),
    (tiniest, IMAGES, (2, 10)),
    (resnet8, IMAGES, (2, 10)),
    (EfficientNetLite0, IMAGES, (2, 1000)),
    (stories260k, (torch.randint(0, 512, (2, 9)),), (2, 9, 512)),
    (ddpm, (torch.rand(2, 1, 28, 28), torch.tensor([1, 1000])), (2, 1, 28, 28)),
    (dit.digits, (torch.rand(2, 1, 8, 8), *torch.tensor([[1, 1000], [0, 10]])), (2, 1, 8, 8)),
    (dit.mnist, (torch.rand(2, 1, 28, 28), *torch.tensor([[1, 9], [0, 10]])), (2, 1, 28, 28)),
    (judge.mnist, (torch.rand(2, 1, 28, 28),), (2, 10)),
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


@pytest.mark.parametrize("factory", [resnet20, tiniest, resnet8, EfficientNetLite0, judge.digits])
def test_preprocessing_is_not_part_of_the_weights(factory):
    assert not [name for name in factory().state_dict() if name.startswith("normalize")]
