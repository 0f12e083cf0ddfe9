"""Noisy images, for models that predict the noise."""

from collections.abc import Iterator

import torch
from torch import Tensor

from signbook.zoo.ddpm import STEPS, noised

__all__ = ["NoiseBatches"]


class NoiseBatches:
    """Batches of ((noisy [B, C, H, W], step [B] int64), noise [B, C, H, W]), all repeatable.

    Step (uniform in 1 to 1000) and noise of an image follow from ``seed`` and its place alone,
    not from the batches.

    Parameters
    ----------
    images : [N, C, H, W] uint8 tensor
    labels : [N] int64 tensor, optional
        Classes of the images, which follow the steps as a third input.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None = None, *, batch: int = 100, seed: int = 0
    ) -> None:
        self._images = images
        self._labels = labels
        self._batch = batch
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self._images) // self._batch)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        for start in range(0, len(self._images), self._batch):
            clean = self._images[start : start + self._batch].float() / 255 - 0.5
            steps, noise = torch.empty(len(clean), dtype=torch.int64), torch.empty_like(clean)
            for i in range(len(clean)):
                generator = torch.Generator().manual_seed(self._seed * 1_000_003 + start + i)
                steps[i] = torch.randint(1, STEPS + 1, (), generator=generator)
                noise[i] = torch.randn(clean.shape[1:], generator=generator)
            told = () if self._labels is None else (self._labels[start : start + self._batch],)
            yield (noised(clean, steps, noise), steps, *told), noise
