"""Image classifiers out of selective state spaces, read in both directions.

After Zhu et al., *Vision Mamba* (arXiv 2401.09417): a transformer's frame, whose blocks mix tokens
by two selective scans (:mod:`signbook.zoo.scan`), one along the sequence of patches and one against
it. The mean over all tokens is classified, so that there are as many tokens as patches; the paper
puts a class token into the middle instead.
"""

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, silu, softplus

from signbook.data.images import ImageBatches, load_cifar10_jpeg, load_mnist
from signbook.zoo.digits import DigitBatches, Digits, load_digits
from signbook.zoo.fitting import fit
from signbook.zoo.images import Standardize
from signbook.zoo.scan import selective_scan
from signbook.zoo.trained import trained
from vq.errors import ConfigError

__all__ = [
    "VisionMamba",
    "cifar10",
    "digits",
    "mnist",
    "trained_cifar10",
    "trained_digits",
    "trained_mnist",
]

#: Taps of the causal convolutions.
_TAPS = 4
#: Range of the lengths of steps before training, uniform in their logarithm (Mamba, section 3.6).
_SHORTEST, _LONGEST = 1e-3, 1e-1
_EPS = 1e-5


class _Direction(nn.Module):
    """Convolution and selective scan along a sequence [B, L, E], both causal."""

    def __init__(self, inner: int, state: int, rank: int) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        self.conv = nn.Conv1d(inner, inner, _TAPS, padding=_TAPS - 1, groups=inner)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        # The real form of S4D: rates of -1, -2, ... in every channel.
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-(rank**-0.5), rank**-0.5)
            dt = torch.empty(inner).uniform_(log(_SHORTEST), log(_LONGEST)).exp()
            self.dt_proj.bias.copy_(dt.expm1().log())  # undoes softplus

    def forward(self, x: Tensor) -> Tensor:
        x = silu(self.conv(x.mT)[..., : x.shape[1]].mT)  # what lies behind the end is cut off
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        dt = softplus(self.dt_proj(dt))
        return selective_scan(x, dt, -self.A_log.exp(), B, C, self.D)


class _Block(nn.Module):
    """Both directions side by side, gated; a residual block."""

    def __init__(self, width: int, inner: int, state: int, rank: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=_EPS)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.ahead = _Direction(inner, state, rank)
        self.back = _Direction(inner, state, rank)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x, z = self.in_proj(self.norm(tokens)).chunk(2, dim=-1)
        mixed = self.ahead(x) + self.back(x.flip(1)).flip(1)
        out: Tensor = tokens + self.out_proj(mixed * silu(z))
        return out


class VisionMamba(nn.Module):
    """Takes images [B, channels, size, size] and gives logits [B, classes].

    Weights that a recipe compresses are ``blocks.*.in_proj``, ``blocks.*.x_proj`` and
    ``blocks.*.out_proj``, all of them linears.

    Parameters
    ----------
    size : int
        Pixels of an image's side.
    channels : int
    patch : int
        Pixels of a patch's side; a sequence has ``(size / patch) ** 2`` tokens.
    width : int
        Numbers of a token.
    depth : int
        Blocks.
    state : int
        Numbers of a channel's state.
    rank : int
        Numbers that the lengths of steps are made from.
    classes : int
    normalize : nn.Module, optional
        Of the images, before all else.

    A block is twice as wide inside.

    Raises
    ------
    ConfigError
        If a size is below 1, or ``size`` is not a multiple of ``patch``; in ``forward``, if images
        are not of the shape above. NaN in an image makes its own logits NaN, and no others.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        state: int = 8,
        rank: int = 4,
        classes: int = 10,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes = {"size": size, "channels": channels, "patch": patch, "width": width,
                 "depth": depth, "state": state, "rank": rank, "classes": classes}  # fmt: skip
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if size % patch:
            raise ConfigError(
                f"size must be a multiple of the patch, {patch} pixels, not {size}; "
                "resize the images, or take another patch"
            )
        self.shape = (channels, size, size)
        self.normalize = nn.Identity() if normalize is None else normalize
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(_Block(width, 2 * width, state, rank) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=_EPS)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ConfigError(f"images must be [B, {wanted}], not {list(images.shape)}")
        x = self.embed(self.normalize(images)).flatten(2).mT + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def digits() -> VisionMamba:
    """Build the smallest, for 8x8 digits of zero mean and unit variance: 16 tokens, 2 blocks."""
    return VisionMamba(size=8, channels=1, patch=2, width=32, depth=2)


def mnist() -> VisionMamba:
    """Build the one for MNIST, in [0, 1]: 49 tokens, 4 blocks."""
    normalize = Standardize((0.1307,), (0.3081,))
    return VisionMamba(size=28, channels=1, patch=4, width=48, depth=4, normalize=normalize)


def cifar10() -> VisionMamba:
    """Build the one for CIFAR-10, in [0, 1]: 64 tokens, 4 blocks."""
    normalize = Standardize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    return VisionMamba(size=32, channels=3, patch=4, width=64, depth=4, normalize=normalize)


def trained_digits(seed: int = 0) -> VisionMamba:
    """Train the smallest on the demo's digits, to 98.7 % of 450 images, or find it in the cache."""
    return trained("vim-digits", digits, _train_digits, sources=_SOURCES, seed=seed)


def trained_mnist(seed: int = 0) -> VisionMamba:
    """Train on 8,000 images of MNIST, or find the model in the cache."""
    return trained("vim-mnist", mnist, _train_mnist, sources=_SOURCES, seed=seed)


def trained_cifar10(seed: int = 0) -> VisionMamba:
    """Train on the 10,000 JPEG images of CIFAR-10, or find the model in the cache."""
    return trained("vim-cifar10", cifar10, _train_cifar10, sources=_SOURCES, seed=seed)


_SOURCES = (VisionMamba, selective_scan, fit, DigitBatches, ImageBatches)


def _train_digits(model: VisionMamba, seed: int) -> None:
    batches = DigitBatches(load_digits(), seed=seed)
    fit(model, batches, cross_entropy, epochs=40, rate=4e-3, clip=1.0)


def _train_mnist(model: VisionMamba, seed: int) -> None:
    train, test = load_mnist("train"), load_mnist("test")
    data = Digits(train.x / 255, train.y, test.x / 255, test.y)
    fit(model, DigitBatches(data, seed=seed), cross_entropy, epochs=16, rate=4e-3, clip=1.0)


def _train_cifar10(model: VisionMamba, seed: int) -> None:
    images = load_cifar10_jpeg("train")
    batches = ImageBatches(images, batch=64, shuffle=True, augment=True, seed=seed)
    fit(model, batches, cross_entropy, epochs=20, rate=2e-3, clip=1.0)
