"""Codebooks as the integers that are stored, with gradients that ignore the rounding."""

from typing import Any

import torch
from torch import Tensor

from vq.container.constants import CODE_MAX

__all__ = ["applied", "book_step", "codebook_step", "half_through", "reuse", "round_through"]


def book_step(integers: Tensor) -> Tensor:
    """Value of one integer of a fixed codebook, so that its root mean square is 1; [] float32."""
    return 1 / integers.square().mean().sqrt()


def codebook_step(codebook: Tensor) -> Tensor:
    """Value of one integer step of a codebook, so that its peak is 127 steps; [] float32."""
    peak = codebook.detach().abs().amax()
    return torch.where(peak > 0, peak / CODE_MAX, torch.ones_like(peak))


def round_through(
    x: Tensor, low: float | Tensor = -CODE_MAX, high: float | Tensor = CODE_MAX
) -> Tensor:
    """Round to whole numbers from ``low`` to ``high``; the gradient passes as if nothing happened.

    The bounds are numbers, or tensors that both broadcast to ``x``.

    ``x + (round(x) - x).detach()`` would now and then miss the integer by one unit in the last
    place, and the trained weight would not be the stored one.
    """
    rounded: Tensor = applied(_Round, x, low, high)
    return rounded


def half_through(x: Tensor) -> Tensor:
    """Nearest numbers that fp16 holds, float32; the gradient passes as if nothing happened."""
    rounded: Tensor = applied(_Half, x)
    return rounded


def applied(function: type[torch.autograd.Function], *args: Any) -> Any:
    """``function.apply(*args)``, less the look at signatures that only transforms need."""
    if torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling():
        return function.apply(*args)  # type: ignore[no-untyped-call]
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]


def reuse(tensor: Tensor, operation: str, *args: Any) -> Tensor:
    """``tensor.operation(*args)`` in the memory of ``tensor``, which nobody else holds.

    Not in it under transforms such as ``vmap``, where ``args`` may be wider than they look.
    """
    in_place = "" if torch._C._are_functorch_transforms_active() else "_"
    found: Tensor = getattr(tensor, operation + in_place)(*args)
    return found


class _Round(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: Any, high: Any) -> Tensor:
        # Adding 0 makes a zero of what -0.1 rounds to: a decoder knows no negative zero.
        return reuse(torch.round(x), "clamp", low, high).add_(0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing of the inputs is needed."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None


class _Half(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.half().float()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing of the inputs is needed."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]
