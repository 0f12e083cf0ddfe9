"""Diffusion transformer (DiT, Peebles and Xie, arXiv 2212.09748), told which class to draw.

It takes what :mod:`signbook.zoo.ddpm` takes, pixels in [-0.5, 0.5] and steps of its schedule, and
a class for every image. One class more, ``classes``, stands for none: of the images that it learns
from, some have that, for guidance without a classifier (Ho and Salimans, arXiv 2207.12598).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pixel_shuffle, scaled_dot_product_attention, silu

from signbook.zoo.ddpm import signal_share
from signbook.zoo.preconditioned import noise_of, waves
from vq.errors import ConfigError, bulleted

__all__ = ["DiT", "digits", "mnist"]


class _Attention(nn.Module):
    """Queries, keys and values have a linear each, and so a codebook each, or share one."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, width]
        parts = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Block(nn.Module):
    """Attention and perceptron, each shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = _Attention(width, heads, fused)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # [B, T, width], [B, width]
        parts = self.modulation(silu(condition))[:, None].chunk(6, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        hidden = gelu(self.fc1(self.norm2(x) * (1 + scale2) + shift2), approximate="tanh")
        out: Tensor = x + gate2 * self.fc2(hidden)
        return out


class DiT(nn.Module):
    """Predict the noise in images of known classes.

    What the transformer gives is what :func:`~signbook.zoo.preconditioned.noise_of` takes: a small
    model need not carry the noise through.

    Takes noisy images [B, channels, size, size], steps [B] from 1 to 1000 and classes [B] from 0
    to ``classes``, the last of which is none; gives the noise, in the shape of the images. As in
    the paper, every block starts as the identity, and the transformer by giving 0.

    Parameters
    ----------
    size : int
        Pixels of a side.
    patch : int
        Pixels of a token's side.
    width, depth, heads : int
        Of the transformer; the width is that of the condition too.
    classes, channels : int
    fused : bool
        One linear for queries, keys and values, in this order, instead of three.

    Attributes
    ----------
    shape : (int, int, int)
        Of an image: channels, height, width.

    Raises
    ------
    ConfigError
        If the sizes do not fit each other.
    """

    position: Tensor
    share: Tensor

    def __init__(
        self,
        size: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int = 4,
        classes: int = 10,
        channels: int = 1,
        fused: bool = False,
    ) -> None:
        super().__init__()
        problems = [
            f"{name} must be a multiple of {part}, not {whole}"
            for name, whole, part in (("size", size, patch), ("width", width, math.lcm(heads, 4)))
            if whole < 1 or whole % part
        ]
        if problems:
            raise ConfigError(bulleted("DiT", problems))
        self.shape, self.classes = (channels, size, size), classes
        self._patch, self._side = patch, size // patch
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        rows, columns = torch.cartesian_prod(*2 * [torch.arange(self._side)]).T
        position = torch.cat([waves(rows, width // 2), waves(columns, width // 2)], dim=1)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("share", signal_share(), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(_Block(width, heads, fused) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels * patch**2)
        self._start()

    def forward(self, noisy: Tensor, step: Tensor, label: Tensor) -> Tensor:
        x = self.patches(noisy).flatten(2).transpose(1, 2) + self.position  # [B, T, width]
        condition = self.time(waves(step, self.position.shape[1])) + self.label(label)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(silu(condition))[:, None].chunk(2, -1)
        x = self.out(self.norm(x) * (1 + scale) + shift).transpose(1, 2)
        rest = pixel_shuffle(x.unflatten(2, (self._side, self._side)), self._patch)
        return noise_of(rest, noisy, self.share[step])

    @torch.no_grad()
    def _start(self) -> None:
        """Initialise blocks as the identity, and what comes out as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for small in (self.time[0], self.time[2], self.label):
            nn.init.normal_(small.weight, std=0.02)  # type: ignore[arg-type]
        gates = (block.modulation for block in self.modules() if isinstance(block, _Block))
        for zero in (*gates, self.modulation, self.out):
            nn.init.zeros_(zero.weight)


def digits(*, fused: bool = False) -> DiT:
    """Build the model for 8x8 digits with fresh weights; its blocks' linears hold 221,184."""
    return DiT(8, patch=2, width=64, depth=3, fused=fused)


def mnist(*, fused: bool = False) -> DiT:
    """Build the model for MNIST with fresh weights; its blocks' linears hold 663,552."""
    return DiT(28, patch=4, width=96, depth=4, fused=fused)
