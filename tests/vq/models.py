"""Small models and data for the tests."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two compressible linears, a norm, a convolution that nothing compresses, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 4, 3, padding=1)
        self.fc1 = nn.Linear(64, 48)
        self.norm = nn.BatchNorm1d(48)
        self.fc2 = nn.Linear(48, 32)
        self.head = nn.Linear(32, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x[:, None]).flatten(1)
        x = torch.relu(self.norm(self.fc1(x)))
        out: Tensor = self.head(torch.relu(self.fc2(x)))
        return out


def batches(count: int = 8, batch: int = 32, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Learnable classification data: the class is the position of the largest of five sums."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        x = torch.randn(batch, 16, generator=generator)
        out.append((x, x[:, :15].reshape(batch, 5, 3).sum(2).argmax(1)))
    return out


def unchanged(model, before):
    """Assert that a model's state is still that of ``before``."""
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
