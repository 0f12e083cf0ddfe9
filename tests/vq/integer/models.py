"""Small networks with every operation of integer graphs, compressed and with their graphs."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vq
from vq import SSVQ, VQ, Int2, Int3, Int4, Int8, Recipe
from vq.integer import IntegerModel, add_integer


class Small(nn.Module):
    """Strides, groups, depthwise, lopsided padding, both shortcuts, pools, a bias everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5])[:, None, None], persistent=False)
        self.stem = nn.Conv2d(2, 8, 3, stride=(2, 1), padding=(1, 2), bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.depth = nn.Conv2d(8, 8, (3, 1), padding="same", groups=8)
        self.bn_depth = nn.BatchNorm2d(8)
        self.group = nn.Conv2d(8, 8, 1, groups=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.pad = nn.ZeroPad2d((0, 1, 2, 0))
        self.down = nn.Conv2d(8, 12, 2, stride=2, bias=False)
        self.bn_down = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.stem((x - self.mean) / 0.25)))
        y = self.group(F.relu(self.bn_depth(self.depth(x))))
        x = torch.relu(x + y)
        x = self.pool(x)
        y = self.bn_down(self.down(self.pad(x)))
        x = (y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 3))).relu()
        return self.fc(self.drop(x.mean((2, 3))))


class Wave(nn.Module):
    """One spatial axis: dilation, a ReLU that is not fused, pooling that keeps its axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=2, dilation=2)
        self.bn = nn.BatchNorm1d(8)
        self.pool = nn.MaxPool1d(2, padding=1)
        self.average = nn.AdaptiveAvgPool1d(1)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(8, 8)
        self.fc2 = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bn(self.conv(x)))
        x = F.relu(x) + x
        x = self.flatten(self.average(x))
        x = torch.relu(self.fc1(x))
        return self.fc2(x.view(x.size(0), -1))


SHAPES = {Small: (2, 9, 7), Wave: (3, 16)}
RECIPES: dict[type[nn.Module], Recipe] = {
    Small: Recipe(
        {
            "stem": Int8(), "depth": Int8(), "fc": Int8(), "group": VQ(d=4, k=8),
            "*": SSVQ(d=4, k=16, axis="kernel"),
        }
    ),
    Wave: Recipe({"conv": VQ(d=2, k=8, scale="output"), "*": SSVQ(d=2, k=4)}),
}  # fmt: skip
#: The same with groups: ragged ones, one for each input, one for an output, with zeros or without.
GROUPED: dict[type[nn.Module], Recipe] = {
    Small: Recipe(
        {
            "stem": Int4(group=5), "depth": Int2(group=2, zeros=True), "group": Int3(group=3),
            "down": Int4(group=8, zeros=True), "fc": Int4(),
        }
    ),
    Wave: Recipe({"conv": Int4(group=4), "fc1": Int3(group=1, zeros=True), "fc2": Int8()}),
}  # fmt: skip


def inputs(kind: type[nn.Module], count: int = 3, batch: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.rand(batch, *SHAPES[kind], generator=generator) for _ in range(count)]


def stored(
    kind: type[nn.Module], folder: Path, choice: str = "max", recipe: Recipe | None = None
) -> tuple[Path, nn.Module, IntegerModel]:
    """A container with an integer graph, the dense model that it decodes to, and the graph."""
    torch.manual_seed(3)
    model = kind()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(norm.weight)  # of both signs
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            norm.weight.data[1] = 0  # an output that is its bias alone
    vq.compress_(model, recipe or RECIPES[kind])
    path = folder / f"{kind.__name__}.vq.safetensors"
    vq.save(model, path)
    integer = add_integer(path, kind(), inputs(kind), choice=choice)
    return path, vq.load(path, into=kind()).eval(), integer
