"""Noise predictor of a denoising diffusion model (Ho et al. 2020) on MNIST."""

import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from signbook.zoo.checkpoints import load_weights, read_state
from vq.errors import ConfigError

__all__ = ["STEPS", "NoisePredictor", "ddpm", "load_ddpm", "noised", "signal_share"]

STEPS = 1000
_CHANNELS = (1, 16, 32, 32, 16)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)
        self.norm = nn.LayerNorm((outputs, 28, 28))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.norm(self.conv(x)))


class NoisePredictor(nn.Module):
    """Predict the noise in an image.

    Takes noisy images [B, 1, 28, 28], whose clean pixels lie in [-0.5, 0.5], and steps [B] from
    1 to 1000; gives the noise [B, 1, 28, 28]. ``shape`` is that of an image; it knows no classes.
    """

    frequencies: Tensor
    shape = (1, 28, 28)
    classes = None

    def __init__(self) -> None:
        super().__init__()
        speeds = torch.tensor([0.0, *(2 * math.pi * 1.5**i for i in range(15))])
        self.register_buffer("frequencies", speeds)
        self.time = nn.Sequential(
            nn.Linear(32, 128), nn.GELU(),
            nn.Linear(128, 128), nn.GELU(),
            nn.Linear(128, 128), nn.GELU(),
            nn.Linear(128, _CHANNELS[1]),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            _Block(inputs, outputs) for inputs, outputs in pairwise(_CHANNELS)
        )
        self.out = nn.Conv2d(_CHANNELS[-1], 1, 3, padding=1)

    def forward(self, noisy: Tensor, step: Tensor) -> Tensor:
        phase = (step / STEPS)[:, None] * self.frequencies
        when: Tensor = self.time(torch.cat([phase.sin(), phase.cos() - 1], dim=1))
        x = noisy
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0:
                x = x + when[:, :, None, None]
        noise: Tensor = self.out(x)
        return noise

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read the published ``*.pth`` file, or a torch file with this model's own names."""
        state = read_state(path)
        share = state.pop("alpha_t", None)
        state.pop("beta_t", None)
        if share is not None and (
            share.shape != (STEPS + 1,) or not torch.allclose(share, signal_share(), rtol=1e-3)
        ):
            raise ConfigError(f"{path}: 'alpha_t' must be the schedule with {STEPS} steps")
        return {_renamed(name): value for name, value in state.items()}


_PARTS = {"gt.frequencies": "frequencies", "gt.blocks.4": "out", "gt.time_embed": "time"}


def _renamed(name: str) -> str:
    """Published name to ours.

    >>> _renamed("gt.blocks.2.net.1.bias"), _renamed("gt.time_embed.6.weight")
    ('blocks.2.norm.bias', 'time.6.weight')
    """
    for theirs, ours in _PARTS.items():
        if name == theirs or name.startswith(theirs + "."):
            return ours + name.removeprefix(theirs)
    return name.removeprefix("gt.").replace(".net.0.", ".conv.").replace(".net.1.", ".norm.")


def signal_share() -> Tensor:
    """Share of the image's variance that is left after every step [1001], from almost 1 to 0.

    The noise's variance grows linearly from 1e-4 to 0.02 per step.
    """
    steps = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
    return torch.cumprod(1 - (1e-4 + (0.02 - 1e-4) * steps), 0).float()


def noised(clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    """Images [B, C, H, W] as they are after steps [B], with noise of their shape."""
    left = signal_share().to(clean.device)[step][:, None, None, None]
    return left.sqrt() * clean + (1 - left).sqrt() * noise


def ddpm() -> NoisePredictor:
    """Build the model with fresh weights."""
    return NoisePredictor()


def load_ddpm(path: str | Path) -> NoisePredictor:
    """Load ``ddpm_mnist_starter.pth``: mean squared error 0.0190 on 500 MNIST test images."""
    return load_weights(ddpm(), path)
