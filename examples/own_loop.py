"""Train a compressed model in your own loop: the three marked lines are all that differs.

python examples/own_loop.py
"""

import torch
from torch import nn

import vq
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules


def train(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], epochs: int) -> float:
    """Train in place; return the last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rules = Rules(model, [Clamping(), vq.Freezing()], epochs * len(batches))  # this one,
    for _ in range(epochs):
        for x, y in batches:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            rules.before_step()  # this one,
            optimizer.step()
            rules.after_step()  # and this one
    return loss.item()


def main() -> None:
    """Train a small network whose answer is the position of the largest of four sums."""
    torch.manual_seed(0)
    x = torch.randn(16, 32, 16)
    batches = list(zip(x, x.reshape(16, 32, 4, 4).sum(3).argmax(2), strict=True))
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    vq.compress_(model, vq.Recipe({"0": vq.SSVQ(d=8, k=16)}))
    print(f"loss {train(model, batches, epochs=1):.3f} after one epoch, ", end="")
    print(f"{train(model, batches, epochs=20):.3f} after more")


if __name__ == "__main__":
    main()
