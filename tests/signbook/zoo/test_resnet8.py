"""ResNet-8: Keras pads where torch does not."""

import torch

from signbook.zoo.resnet8 import resnet8


def test_resnet8_pads_strided_convolutions_at_the_right_and_bottom():
    block = resnet8().block2
    assert block.pad(torch.ones(1, 1, 2, 2))[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert block.conv1.padding == (0, 0)
