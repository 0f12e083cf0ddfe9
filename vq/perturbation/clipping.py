"""How much of its range a group of weights keeps: learnt, by its upper and its lower end."""

import torch
from torch import Tensor, nn

from vq.container import Geometry

__all__ = ["Clipping"]


class Clipping(nn.Module):
    """``[sigmoid(beta) * min, sigmoid(gamma) * max]`` in place of a group's range.

    Without zeros a group has one end, that of its greatest magnitude, and no beta.

    Parameters
    ----------
    geometry : Geometry
    start : float
        Of gamma and beta.
    rate : float
    device : torch.device
    """

    def __init__(self, geometry: Geometry, start: float, rate: float, device: torch.device) -> None:
        super().__init__()
        self.rate = rate
        count = -(-geometry.I // geometry.group_width)
        begin = torch.full((geometry.O, count), start, device=device)
        self.gamma = nn.Parameter(begin.clone())
        self.beta = nn.Parameter(begin) if geometry.zeros else None

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of the groups, [O, groups of an output] each."""
        upper = torch.sigmoid(self.gamma)
        lower = upper if self.beta is None else torch.sigmoid(self.beta)
        return lower * low, upper * high
