"""Codebooks as the integers that are stored, with gradients that ignore the rounding."""

from typing import Any

import torch
from torch import Tensor

from vq.container.constants import CODE_MAX

__all__ = ["book_step", "codebook_step", "round_through"]


def book_step(integers: Tensor) -> Tensor:
    """Value of one integer of a fixed codebook, so that its root mean square is 1; [] float32."""
    return 1 / integers.square().mean().sqrt()


def codebook_step(codebook: Tensor) -> Tensor:
    """Value of one integer step of a codebook, so that its peak is 127 steps; [] float32."""
    peak = codebook.detach().abs().amax()
    return torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak))


def round_through(
    x: Tensor, low: int | Tensor = -CODE_MAX, high: int | Tensor = CODE_MAX
) -> Tensor:
    """Round to whole numbers from ``low`` to ``high``; the gradient passes as if nothing happened.

    The bounds are numbers, or tensors that both broadcast to ``x``.

    ``x + (round(x) - x).detach()`` would now and then miss the integer by one unit in the last
    place, and the trained weight would not be the stored one.
    """
    rounded: Tensor = _Round.apply(x, low, high)  # type: ignore[no-untyped-call]
    return rounded


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Any, high: Any) -> Tensor:
        # Adding 0 makes a zero of what -0.1 rounds to: a decoder knows no negative zero.
        return torch.round(x).clamp_(low, high).add_(0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None
