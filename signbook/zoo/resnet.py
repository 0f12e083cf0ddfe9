"""Residual networks for CIFAR-10 (He et al. 2015, section 4.2) with parameter-free shortcuts."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import pad

from signbook.zoo.checkpoints import load_weights
from signbook.zoo.images import Standardize

__all__ = ["CifarResNet", "load_resnet20", "load_resnet44", "resnet20", "resnet44"]


class _Shortcut(nn.Module):
    """Option A of the paper: every second pixel, and zero channels on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        half = self.added // 2
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.added - half))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _Shortcut(outputs - inputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        out: Tensor = (y + self.shortcut(x)).relu()
        return out


class CifarResNet(nn.Module):
    """``6 * blocks + 2`` layers in three stages of 16, 32 and 64 channels.

    Takes RGB images [B, 3, 32, 32] in [0, 1] and gives logits [B, classes].
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.normalize = Standardize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(self.normalize(images))).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = _Block(inputs, outputs, outputs // inputs)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20() -> CifarResNet:
    """Build ResNet-20 with fresh weights."""
    return CifarResNet(3)


def resnet44() -> CifarResNet:
    """Build ResNet-44 with fresh weights."""
    return CifarResNet(7)


def load_resnet20(path: str | Path) -> CifarResNet:
    """Load ``resnet20-12fca82f.th``: 91.72 % of the 761 exact CIFAR-10 test images."""
    return load_weights(resnet20(), path)


def load_resnet44(path: str | Path) -> CifarResNet:
    """Load ``resnet44-014dd654.th``: 93.82 % of the 761 exact CIFAR-10 test images."""
    return load_weights(resnet44(), path)
