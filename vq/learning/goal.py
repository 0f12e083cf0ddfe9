"""What a block is to give, and how far others are from it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vq import distributed

__all__ = ["Goal"]


class Goal:
    """What the teacher gives behind a stage, for every batch, and how far others are from it.

    Parameters
    ----------
    wanted : list of list of Tensor
        By batch.
    weights : sequence of float, optional
        Of the tensors' errors, which then add up; otherwise, their mean counts.
    """

    def __init__(self, wanted: list[list[Tensor]], weights: Sequence[float] = ()) -> None:
        self._wanted = wanted
        squares = [
            torch.stack([one.float().square().mean() for one in outputs])
            for outputs in zip(*wanted, strict=True)
        ]
        # A tensor of zeros is left as it is.
        self._sizes = [distributed.mean(each.mean()) or 1.0 for each in squares]
        self._weights = weights[: len(squares)]

    @property
    def values(self) -> int:
        """How many numbers are wanted, in this process."""
        return sum(one.numel() for outputs in self._wanted for one in outputs)

    def error(self, outputs: list[Tensor], batch: int) -> Tensor:
        """Mean over tensors of their squared error, relative to all batches' mean square; []."""
        errors = [
            nn.functional.mse_loss(one.float(), wanted.to(one.device).float()) / size
            for one, wanted, size in zip(outputs, self._wanted[batch], self._sizes, strict=True)
        ]
        if self._weights:
            return torch.stack([w * e for w, e in zip(self._weights, errors, strict=True)]).sum()
        return torch.stack(errors).mean()
