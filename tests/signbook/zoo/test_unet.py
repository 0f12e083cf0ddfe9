"""The convolutional noise predictor: where it starts, and what its inputs reach."""

import pytest
import torch
from torch import nn

from signbook.zoo import unet
from signbook.zoo.ddpm import signal_share
from signbook.zoo.preconditioned import noise_of
from signbook.zoo.unet import UNet
from vq.activations.timetables import tabulate_
from vq.errors import ConfigError

NOISY, STEP, LABEL = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 1000]), torch.tensor([0, 9, 10])


def awake() -> UNet:
    """A small model in which nothing is zero any more."""
    model = UNet(8, (8, 16), told=16).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def test_it_starts_with_the_best_linear_guess():
    model = UNet(8, (8, 16), told=16)
    wanted = noise_of(torch.zeros_like(NOISY), NOISY, signal_share()[STEP])
    assert model(NOISY, STEP, LABEL).equal(wanted)
    x, condition = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    assert model.down[0](x, condition).equal(x + model.down[0].conv2.bias[:, None, None])


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_input_reaches_its_own_image(place):
    model, inputs = awake(), [NOISY, STEP, LABEL]
    before = model(*inputs)
    inputs[place] = inputs[place].clone()
    inputs[place][1] -= 1
    changed = (model(*inputs) - before).flatten(1).abs().amax(1) > 1e-3
    assert changed.tolist() == [False, True, False]


@torch.no_grad()
def test_every_place_reaches_every_other():
    model = awake()
    changed = NOISY.clone()
    changed[0, 0, 0, 0] += 1
    assert (model(changed, STEP, LABEL)[0] != model(NOISY, STEP, LABEL)[0]).all()


@torch.no_grad()
def test_tables_of_step_and_class_stand_for_all_that_a_condition_becomes():
    model, inputs = awake(), (NOISY[:1], STEP[1:2], LABEL[1:2])
    wanted = model(*inputs)
    tables = tabulate_(model, [500], inputs, classes=11)
    assert {"time", "label", "down.0.shift"} <= {*tables.modules, *tables.unread}
    assert model(*inputs).equal(wanted)


def test_every_weight_learns():
    model = awake()
    model(NOISY, STEP, LABEL).square().mean().backward()
    still = [n for n, p in model.named_parameters() if not (p.grad is not None and p.grad.any())]
    assert not still


@torch.no_grad()
def test_the_named_model_is_as_large_as_it_says():
    model = unet.mnist()
    assert sum(parameter.numel() for parameter in model.parameters()) == 769_713
    assert model.shape == (1, 28, 28) and model.classes == 10
    assert model(torch.zeros(1, 1, 28, 28), STEP[:1], LABEL[:1]).shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("size", "widths", "message"),
    [
        (6, (8, 8, 8), "^UNet: size must be a multiple of 4 for 3 widths, one at least, not 6$"),
        (6, (), "^UNet: size must be a multiple of 1 for 0 widths, one at least, not 6$"),
        (8, (8, 12), "^UNet: widths must be multiples of 8, the last of 4 heads, too, not 8, 12$"),
    ],
)
def test_sizes_that_do_not_fit(size, widths, message):
    with pytest.raises(ConfigError, match=message):
        UNet(size, widths)
