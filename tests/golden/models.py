"""Small models and data for the golden files: every number comes from SHAKE-256 of a label.

The weights of ``every_method`` are codewords of a few integers, so that clustering finds them again
exactly, whatever order a processor adds in.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

import vq
from signbook.tasks import Classification
from tests.golden.make import noise

Model = TypeVar("Model", bound=nn.Module)

#: What ``every_method`` is compressed by.
RECIPE = """\
stem: {method: int8, tile_outputs: 8}
depth: {method: ssvq, d: 8, k: 4, tile_outputs: 8}
block.ssvq: {method: ssvq, d: 8, k: 16, tile_outputs: 8}
block.parity: {method: ssvq, d: 8, k: 16, parity: true, scale: output, tile_outputs: 8}
block.normed: {method: ssvq, d: 4, k: 16, scale: norm, tile_outputs: 8}
block.vq: {method: vq, d: 4, k: 64, tile_outputs: 8}
block.shared?: {method: vq, d: 8, k: 32, shared: pair, tile_outputs: 8}
block.int4: {method: int4, group: 16, zeros: true, tile_outputs: 8}
block.int3: {method: int3, group: 32, tile_outputs: 8}
block.int2: {method: int2, tile_outputs: 8}
head: null
"""


LINEARS = ("ssvq", "parity", "normed", "vq", "shared1", "shared2", "int4", "int3", "int2")


class Block(nn.Module):
    """One linear layer for every method, all with a norm behind them."""

    def __init__(self) -> None:
        super().__init__()
        for name in LINEARS:
            setattr(self, name, nn.Linear(32, 32))
            setattr(self, f"{name}_norm", nn.LayerNorm(32))

    def forward(self, x: Tensor) -> Tensor:
        for name in LINEARS:
            x = torch.relu(getattr(self, f"{name}_norm")(getattr(self, name)(x)))
        return x


class EveryMethod(nn.Module):
    """Convolutions, one of them depthwise, a block of linear layers, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.depth = nn.Conv2d(32, 32, 3, groups=32)
        self.block = Block()
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.depth(self.stem(x)).mean((2, 3))))
        return out


def every_method() -> EveryMethod:
    """Model whose weights are exact on the grids of its ``RECIPE``."""
    model = _filled(EveryMethod())
    rules = vq.Recipe.from_yaml(RECIPE).resolve([n for n, m in model.named_modules() if n])
    for name, method in rules.items():
        if isinstance(method, vq.SSVQ | vq.VQ):
            weight = model.get_submodule(name).weight
            weight.data = _of_codewords(name, weight, method)
    return model


def _of_codewords(name: str, weight: Tensor, method: vq.SSVQ | vq.VQ) -> Tensor:
    """Weight [O, I...] whose sub-vectors are ``method.k`` codewords, with signs for SSVQ."""
    d, k, label = method.d, method.k, method.shared or name
    plus = isinstance(method, vq.SSVQ)
    ranks = np.argsort(noise(f"{label} ranks", (8 * k, d), 2**20), axis=1, kind="stable")
    books = 2 * ranks + 3  # no codeword lies half-way between two int8 values
    if not plus:
        books *= 1 - 2 * noise(f"{label} book", books.shape, 2)
    _, first = np.unique(books, axis=0, return_index=True)
    book = books[np.sort(first)[:k]]
    count = weight.numel() // d
    chosen = np.concatenate([np.arange(k), noise(f"{name} indices", (count - k,), k)])
    values = book[chosen]
    if plus:
        values = values * (1 - 2 * noise(f"{name} signs", values.shape, 2))
    matrix = torch.from_numpy(values / 64).float()
    if weight.ndim == 2:
        return matrix.reshape(weight.shape)
    # Depthwise: sub-vectors run along the outputs, one for each d of them and each tap.
    taps = weight[0].numel()
    return matrix.reshape(-1, taps, d).transpose(1, 2).reshape(weight.shape).contiguous()


def network() -> nn.Sequential:
    """A convolution and two linear layers."""
    return _filled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 24), nn.ReLU(),
            nn.Linear(24, 5),
        )
    )  # fmt: skip


def pictures() -> Classification:
    """Twelve batches of sixteen pictures [3, 6, 6]."""
    x = _uniform("pictures", (12, 16, 3, 6, 6))
    return Classification([(batch, batch.mean((2, 3)).argmax(1)) for batch in x])


def _filled(model: Model) -> Model:
    """Give weights and biases values between -1/4 and 1/4; norms stay as they are."""
    for name, parameter in model.named_parameters():
        if "_norm." not in name:
            parameter.data = _uniform(name, tuple(parameter.shape)) / 4
    return model.eval()


def _uniform(label: str, shape: tuple[int, ...]) -> Tensor:
    """Multiples of 2**-12 between -1 and 1."""
    return torch.from_numpy(noise(label, shape, 2**13 + 1) / 2**12 - 1).float()
