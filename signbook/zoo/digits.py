"""Handwritten digits (8x8 pixels) and a small vision transformer in the manner of DeiT."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from signbook.zoo.fitting import fit

__all__ = ["DigitBatches", "Digits", "DigitsViT", "load_digits", "top1", "train"]


@dataclass(frozen=True)
class Digits:
    """Images of digits ``train_x`` [N, 1, H, W] float32 and their classes ``train_y`` [N] int64.

    ``test_x`` and ``test_y`` hold those that no training sees.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_digits(seed: int = 0) -> Digits:
    """Load scikit-learn's digits, scaled to zero mean and unit variance; no download.

    ``seed`` draws 450 images [1, 8, 8] for the test, with the same share of every class; 1,347 are
    left for training.
    """
    with warnings.catch_warnings():
        # Of no use here, where nothing is computed side by side.
        warnings.filterwarnings("ignore", ".*joblib will operate in serial mode")
        from sklearn.datasets import load_digits as load
        from sklearn.model_selection import train_test_split

    bunch = load()
    split = train_test_split(
        bunch.images.astype(np.float32),
        bunch.target.astype(np.int64),
        test_size=450,
        stratify=bunch.target,
        random_state=seed,
    )
    train_x, test_x, train_y, test_y = (torch.from_numpy(np.ascontiguousarray(a)) for a in split)
    mean, std = train_x.mean(), train_x.std()
    return Digits(
        ((train_x - mean) / std)[:, None], train_y, ((test_x - mean) / std)[:, None], test_y
    )


class DigitBatches:
    """Shuffled training batches; every image is shifted by up to one pixel.

    Iterating again gives another shuffle; equal seeds give equal sequences of shuffles.
    """

    def __init__(self, data: Digits, *, batch: int = 64, seed: int = 0) -> None:
        self._data = data
        self._batch = batch
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._data.train_y) // self._batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self._data.train_y), generator=self._generator)
        for i in range(len(self)):
            chosen = order[i * self._batch : (i + 1) * self._batch]
            yield self._shift(self._data.train_x[chosen]), self._data.train_y[chosen]

    def _shift(self, images: Tensor) -> Tensor:
        """Move every image of a batch [B, 1, H, W] by -1, 0 or 1 pixel in both directions."""
        count, _, height, width = images.shape
        background = images.amin()
        padded = nn.functional.pad(images, (1, 1, 1, 1), value=float(background))
        dy, dx = torch.randint(0, 3, (2, count, 1, 1), generator=self._generator)
        rows = torch.arange(height)[None, :, None] + dy
        columns = torch.arange(width)[None, None, :] + dx
        return padded[torch.arange(count)[:, None, None], 0, rows, columns][:, None]


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, tokens, dim))
        return out


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))
        return out


class DigitsViT(nn.Module):
    """Pre-norm transformer with a convolutional stem and a class token.

    The stem turns an image [B, 1, 8, 8] into 16 tokens. With the default size, the linears of
    the four blocks hold 442,368 of the model's weights.
    """

    def __init__(self, dim: int = 96, depth: int = 4, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, dim // 2, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 2, stride=2),
        )
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, dim))
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits


def train(model: nn.Module, data: Digits, *, epochs: int = 40, seed: int = 0) -> nn.Module:
    """Train ``model`` from scratch with AdamW and a one-cycle learning rate; return it."""
    batches = DigitBatches(data, seed=seed)
    return fit(model, batches, nn.functional.cross_entropy, epochs=epochs, rate=2e-3)


@torch.no_grad()
def top1(model: nn.Module, data: Digits) -> float:
    """Share of the test images that ``model`` classifies correctly."""
    return float((model.eval()(data.test_x).argmax(1) == data.test_y).float().mean())
