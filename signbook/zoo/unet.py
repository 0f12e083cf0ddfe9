"""Small convolutional noise predictor (U-Net, Ho et al., arXiv 2006.11239), told what to draw.

It takes and gives what :class:`signbook.zoo.dit.DiT` does, with the same target inside. Step and
class reach every block as a shift of its channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from signbook.zoo.ddpm import signal_share
from signbook.zoo.preconditioned import noise_of, waves
from vq.errors import ConfigError

__all__ = ["UNet", "mnist"]

#: Groups of every norm.
_GROUPS = 8


class _Block(nn.Module):
    """Two convolutions beside a way around them, shifted in between by the condition."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(told, outputs)
        self.norm2 = nn.GroupNorm(_GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # [B, inputs, H, W], [B, told]
        hidden = self.conv1(silu(self.norm1(x))) + self.shift(silu(condition))[:, :, None, None]
        out: Tensor = self.around(x) + self.conv2(silu(self.norm2(hidden)))
        return out


class _Attention(nn.Module):
    """All places of an image with all, beside a way around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:  # [B, width, H, W]
        places = self.norm(x).flatten(2).transpose(1, 2)
        parts = (linear(places) for linear in (self.q, self.k, self.v))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = x + self.proj(mixed).transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class UNet(nn.Module):
    """Predict the noise in images of known classes.

    Takes noisy images [B, channels, size, size], steps [B] from 1 to 1000 and classes [B] from 0
    to ``classes``, the last of which is none; gives the noise, in the shape of the images. Every
    block starts as the way around its convolutions, and the network by giving 0 for what is left
    of the noise (:func:`signbook.zoo.preconditioned.noise_of`).

    Parameters
    ----------
    size : int
        Pixels of a side.
    widths : sequence of int
        Channels at full size, at half, ..., each a multiple of 8. At the least size is attention.
    told : int
        Width of the condition.
    heads, classes, channels : int

    Attributes
    ----------
    shape : (int, int, int)
        Of an image: channels, height, width.

    Raises
    ------
    ConfigError
        If the sizes do not fit each other.
    """

    share: Tensor

    def __init__(
        self,
        size: int,
        widths: tuple[int, ...],
        *,
        told: int = 64,
        heads: int = 4,
        classes: int = 10,
        channels: int = 1,
    ) -> None:
        super().__init__()
        halvings = len(widths) - 1
        if not widths or size < 1 or size % 2**halvings:
            raise ConfigError(
                f"UNet: size must be a multiple of {2 ** max(halvings, 0)} for {len(widths)} "
                f"widths, one at least, not {size}"
            )
        if any(width < 1 or width % _GROUPS for width in widths) or widths[-1] % heads:
            raise ConfigError(
                f"UNet: widths must be multiples of {_GROUPS}, the last of {heads} heads, too, "
                f"not {', '.join(map(str, widths))}"
            )
        self.shape, self.classes, self._told = (channels, size, size), classes, told
        self.register_buffer("share", signal_share(), persistent=False)
        self.time = nn.Sequential(nn.Linear(told, told), nn.SiLU(), nn.Linear(told, told))
        self.label = nn.Embedding(classes + 1, told)
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            if i:
                self.down.append(nn.Conv2d(widths[i - 1], width, 3, stride=2, padding=1))
            self.down.append(_Block(width, width, told))
        self.attention = _Attention(widths[-1], heads)
        self.middle = _Block(widths[-1], widths[-1], told)
        self.up = nn.ModuleList()
        for i, width in reversed(list(enumerate(widths))):
            self.up.append(_Block(2 * width, width, told))
            if i:
                self.up.append(nn.Conv2d(width, widths[i - 1], 1))
        self.norm = nn.GroupNorm(_GROUPS, widths[0])
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)
        self._start()

    def forward(self, noisy: Tensor, step: Tensor, label: Tensor) -> Tensor:
        condition = self.time(waves(step, self._told)) + self.label(label)
        x = self.first(noisy)
        kept = []
        for part in self.down:
            if isinstance(part, _Block):
                x = part(x, condition)
                kept.append(x)
            else:
                x = part(x)
        x = self.middle(self.attention(x), condition)
        for part in self.up:
            if isinstance(part, _Block):
                x = part(torch.cat([x, kept.pop()], dim=1), condition)
            else:
                x = interpolate(part(x), scale_factor=2.0)
        return noise_of(self.out(silu(self.norm(x))), noisy, self.share[step])

    @torch.no_grad()
    def _start(self) -> None:
        """Initialise blocks as the way around, and what comes out as zero."""
        for block in self.modules():
            if isinstance(block, _Block):
                nn.init.zeros_(block.conv2.weight)
            elif isinstance(block, _Attention):
                nn.init.zeros_(block.proj.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.label.weight, std=0.02)


def mnist() -> UNet:
    """Build the model for MNIST with fresh weights."""
    return UNet(28, (16, 32, 96))
