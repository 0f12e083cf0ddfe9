"""What moves a weight before it is rounded: by its singular vectors, or every entry by itself.

A move is a module that takes a matrix [O, I] to another one, starts as the identity, bit for bit,
and says in ``rate`` how fast its parameters learn.
"""

import math

import torch
from torch import Tensor, nn

from vq.perturbation.mask import Mask

__all__ = ["FreeMove", "SingularMove", "steady_rate"]

#: Rows of D that are multiplied at a time: a band is then a fraction of the product.
_STRIP = 64


def steady_rate(share: float, scale: float, weights: int, count: int) -> float:
    """Learning rate at which a step of Adam moves weights by a share of their grid's step.

    Adam moves each of ``count`` numbers by about its rate; where the directions that they stand
    for are orthonormal, a weight then moves by ``rate * sqrt(count / weights)`` in the root mean
    square.

    Parameters
    ----------
    share : float
    scale : float
        Of the grid, in mean over its groups.
    weights, count : int
        Of the matrix, and of the numbers that learn.
    """
    return share * scale * math.sqrt(weights / count)


class SingularMove(nn.Module):
    """``W + U D V'``: singular vectors of W, and a D that starts at 0 and is 0 but where it learns.

    On the diagonal, D moves the singular values. Beside it, it also lets every direction of the
    outputs see the neighbours of its own direction of the inputs.

    Parameters
    ----------
    matrix : [O, I]
        W as it is at first, float32.
    mask : Mask
    rate : float

    Buffers
    -------
    u : [O, R]
        R is the rank, or less where no further row of D learns.
    v : [r, I]
    mask : [R, r] bool
    """

    u: Tensor
    v: Tensor
    mask: Tensor

    def __init__(self, matrix: Tensor, mask: Mask, rate: float) -> None:
        super().__init__()
        self.rate = rate
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        free = mask.entries(len(v))
        rows = int(free.any(dim=1).nonzero().max()) + 1
        free = free[:rows]
        for name, tensor in (("u", u[:, :rows].contiguous()), ("v", v), ("mask", free)):
            self.register_buffer(name, tensor.to(matrix.device), persistent=False)
        self.values = nn.Parameter(matrix.new_zeros(int(free.sum())))
        self._strips = list(_strips_of(free))

    def forward(self, matrix: Tensor) -> Tensor:
        """Move a matrix."""
        d = self.values.new_zeros(self.mask.shape).masked_scatter(self.mask, self.values)
        products = [d[rows, columns] @ self.v[columns] for rows, columns in self._strips]
        return matrix + self.u @ torch.cat(products)


class FreeMove(nn.Module):
    """``W + D`` with every entry of D free: what any other move is part of.

    Parameters
    ----------
    matrix : [O, I]
    rate : float
    """

    def __init__(self, matrix: Tensor, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.values = nn.Parameter(torch.zeros_like(matrix))

    def forward(self, matrix: Tensor) -> Tensor:
        """Move a matrix."""
        return matrix + self.values


def _strips_of(free: Tensor) -> list[tuple[slice, slice]]:
    """Some rows at a time, and the columns from their first to their last entry."""
    found = []
    for start in range(0, len(free), _STRIP):
        rows = slice(start, start + _STRIP)
        used = free[rows].any(dim=0).nonzero().flatten().tolist() or [0]
        found.append((rows, slice(used[0], used[-1] + 1)))
    return found
