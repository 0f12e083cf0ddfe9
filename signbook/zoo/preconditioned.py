"""What noise predictors share: waves of a step, and a target that carries no noise through."""

import math

import torch
from torch import Tensor

__all__ = ["PIXEL", "SLOWEST", "noise_of", "waves"]

#: Root mean square of the pixels, about.
PIXEL = 0.5
#: Of the slowest wave, in steps per radian.
SLOWEST = 10_000


def noise_of(rest: Tensor, noisy: Tensor, left: Tensor) -> Tensor:
    """The noise in images, of what a network gives.

    That is not the noise but what is left of it when the best guess that is linear in the noisy
    pixels is taken off, in units of its standard deviation (Karras et al., arXiv 2206.00364, table
    1, for a schedule that keeps the variance).

    Parameters
    ----------
    rest : [B, C, H, W] tensor
        What the network gives, of variance 1 if it knows nothing.
    noisy : [B, C, H, W] tensor
    left : [B] tensor
        Share of the image's variance (:func:`signbook.zoo.ddpm.signal_share`) at the images' steps.
    """
    left = left[:, None, None, None]
    image, noise = PIXEL**2 * left, 1 - left  # variances
    whole = image + noise
    return noise.sqrt() / whole * noisy - (image / whole).sqrt() * rest


def waves(values: Tensor, width: int) -> Tensor:
    """Sines and cosines of numbers [N], from one radian each to a 10,000th: [N, width] float32."""
    half = width // 2
    speeds = torch.exp(torch.arange(half, device=values.device) * (-math.log(SLOWEST) / half))
    phases = values[:, None] * speeds
    return torch.cat([phases.sin(), phases.cos()], dim=1)
