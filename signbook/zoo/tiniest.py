"""A small modern CNN for CIFAR-10: depthwise convolutions in parallel, and gated channel mixing."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, layer_norm

from signbook.zoo.checkpoints import load_weights, read_state
from signbook.zoo.images import Standardize

__all__ = ["Tiniest", "load_tiniest", "tiniest"]

_BLOCKS_PER_STAGE = 3


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = self.weight.shape
        return layer_norm(x.movedim(1, -1), shape, self.weight, self.bias).movedim(-1, 1)


class _Block(nn.Module):
    """A quarter of the channels each: as it is, 3x3, 7x7, and 7x7 with holes; then a gated MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.dw3 = nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter)
        self.dw7 = nn.Conv2d(quarter, quarter, 7, padding=3, groups=quarter)
        self.dw7_dilated = nn.Conv2d(quarter, quarter, 7, padding=9, dilation=3, groups=quarter)
        self.norm = _ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.residual_scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, near, wide, far = x.chunk(4, dim=1)
        smooth = avg_pool2d(far, 3, stride=1, padding=1)
        mixed = torch.cat([kept, self.dw3(near), self.dw7(wide), self.dw7_dilated(smooth)], dim=1)
        gate, value = self.expand(self.norm(mixed)).chunk(2, dim=1)
        out: Tensor = self.project(gate.exp().tanh() * gate * value) + self.residual_scale * x
        return out


class Tiniest(nn.Module):
    """Two stages of three blocks, 48 and 80 channels.

    Takes RGB images [B, 3, 32, 32] in [0, 1] and gives logits [B, classes].
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.normalize = Standardize((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
        self.stem = nn.Conv2d(3, 48, 3, padding=1)
        self.norm1 = _ChannelNorm(48)
        self.stage1 = nn.Sequential(*(_Block(48) for _ in range(_BLOCKS_PER_STAGE)))
        self.down = nn.Conv2d(48, 80, 4, stride=2, padding=1, groups=16)
        self.norm2 = _ChannelNorm(80)
        self.stage2 = nn.Sequential(*(_Block(80) for _ in range(_BLOCKS_PER_STAGE)))
        self.fc = nn.Linear(80, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stage1(self.norm1(self.stem(self.normalize(images))))
        x = self.stage2(self.norm2(self.down(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read the published ``tiniest.pt``, or a torch file with this model's own names."""
        state = read_state(path)
        return {_renamed(name): value for name, value in state.items()}


_PARTS = {
    "conv1": "stem", "ln1.ln": "norm1", "dsconv": "down", "ln2.ln": "norm2", "fc": "fc",
    "dwconv1": "dw3", "dwconv2": "dw7", "dwconv3": "dw7_dilated", "ln.ln": "norm",
    "fc1": "expand", "fc2": "project",
}  # fmt: skip


def _renamed(name: str) -> str:
    """Published name to ours; unknown names stay, so that the misfit names them.

    >>> _renamed("l4.dwconv3.weight"), _renamed("ln1.ln.bias"), _renamed("l1.rs")
    ('stage2.0.dw7_dilated.weight', 'norm1.bias', 'stage1.0.residual_scale')
    """
    head, _, rest = name.partition(".")
    if head[0] == "l" and head[1:].isdigit():
        stage, block = divmod(int(head[1:]) - 1, _BLOCKS_PER_STAGE)
        prefix = f"stage{stage + 1}.{block}."
    else:
        prefix, rest = "", name
    if rest == "rs":
        return prefix + "residual_scale"
    part, _, leaf = rest.rpartition(".")
    return f"{prefix}{_PARTS.get(part, part)}.{leaf}" if part else prefix + rest


def tiniest() -> Tiniest:
    """Build the model with fresh weights."""
    return Tiniest()


def load_tiniest(path: str | Path) -> Tiniest:
    """Load ``tiniest.pt``: 94.48 % of the 761 exact CIFAR-10 test images."""
    return load_weights(tiniest(), path)
