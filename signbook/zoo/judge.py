"""Small convolutional classifier of digits, by whose features generated images are judged."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from signbook.zoo.images import Standardize

__all__ = ["FEATURES", "Judge", "digits", "mnist"]

#: Before the last layer.
FEATURES = 64


class Judge(nn.Module):
    """Classify grey images [B, 1, size, size] in [0, 1].

    Parameters
    ----------
    size : int
        Pixels of a side, a multiple of 4.
    classes : int
    """

    def __init__(self, size: int, classes: int = 10) -> None:
        super().__init__()
        self.normalize = Standardize((0.5,), (0.5,))
        self.convs = nn.ModuleList([
            nn.Conv2d(1, 16, 3, padding=1),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
        ])  # fmt: skip
        self.fc = nn.Linear(64 * (size // 4) ** 2, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer decides by, [B, 64]."""
        x = self.normalize(images)
        for conv in self.convs:
            x = gelu(conv(x))
        return gelu(self.fc(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits

    @torch.no_grad()
    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, classes] of any number of images."""
        features = torch.cat([self.features(part) for part in torch.split(images, 500)])
        return features, self.head(features)


def digits() -> Judge:
    """Build the classifier of 8x8 digits with fresh weights."""
    return Judge(8)


def mnist() -> Judge:
    """Build the classifier of MNIST with fresh weights."""
    return Judge(28)
