"""Noisy images: seeds, steps, shares of signal."""

import pytest
import torch

from signbook.data import NoiseBatches, mnist_noise
from signbook.zoo.ddpm import signal_share
from tests.signbook.shared import shared


def test_noise_follows_the_image_not_the_batch():
    images = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    whole = list(NoiseBatches(images, batch=7))
    parts = list(NoiseBatches(images, batch=3))
    assert len(NoiseBatches(images, batch=3)) == len(parts) == 3
    ((noisy, steps), noise) = whole[0]
    assert torch.equal(torch.cat([n for (n, _), _ in parts]), noisy)
    assert torch.equal(torch.cat([s for (_, s), _ in parts]), steps)
    share = signal_share()[steps][:, None, None, None]
    clean = (noisy - (1 - share).sqrt() * noise) / share.sqrt()
    kept = share.flatten() > 1e-2
    assert torch.allclose(clean[kept], images.float()[kept] / 255 - 0.5, atol=1e-4)
    ((other, _), _) = next(iter(NoiseBatches(images, seed=1)))
    assert not torch.equal(other, noisy)


def test_noise_covers_all_steps():
    steps = torch.cat(
        [s for (_, s), _ in NoiseBatches(torch.zeros(4000, 1, 1, 1, dtype=torch.uint8))]
    )
    assert steps.min() >= 1 and steps.max() <= 1000
    assert float(steps.float().mean()) == pytest.approx(500.5, abs=20)


def test_mnist_noise():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    assert sum(len(noise) for _, noise in mnist_noise(limit=30, batch=20).batches) == 30
