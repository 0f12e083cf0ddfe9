"""Rounding of what linears read, as a part of the model: by token, or on one grid for all."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.activations.tokens import check_rounding, round_tokens
from vq.formats.integers import applied, reuse
from vq.formats.remaining import Remaining

__all__ = ["SHARES", "Rounding", "on_scale", "searched_scale"]

#: Shares of the greatest magnitude that a scale is tried at.
SHARES = tuple(1 - 0.02 * i for i in range(46))


class Rounding(Remaining):
    """Rounds the inputs of linears: a hook before them, behind any transform.

    Without a scale every token has its own grid (:func:`vq.activations.tokens.round_tokens`); with
    one, all tokens share it, symmetric about 0; gradients then pass but for values beyond its ends.

    Parameters
    ----------
    bits : int
        2 to 8.
    symmetric : bool
        Of grids of tokens.
    clip : float
        Share of a token's range that is kept.
    scale : [1] float32, optional
    """

    kind: ClassVar[str] = "rounding"

    def __init__(
        self, bits: int, *, symmetric: bool = True, clip: float = 1.0, scale: Tensor | None = None
    ) -> None:
        check_rounding(bits, clip)
        self.bits, self.symmetric, self.scale = bits, symmetric, scale
        self.clip = float(torch.tensor(clip, dtype=torch.float32))  # as a file holds it
        self.is_on = True

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        if self.scale is not None:
            return {"scale": self.scale}
        return {"clip": torch.tensor([self.clip], dtype=torch.float32)}

    @property
    def settings(self) -> dict[str, int]:
        """What a file says beside its tensors."""
        return {"bits": self.bits, "symmetric": self.symmetric}

    def __repr__(self) -> str:
        how = f"scale={self.scale.item():.6g}" if self.scale is not None else f"clip={self.clip}"
        return f"Rounding(bits={self.bits}, symmetric={self.symmetric}, {how})"

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self.is_on:
            return None
        x, *rest = (*args, *kwargs.values())  # a linear has one input, by place or by name
        return (self.apply(x), *rest), {}

    def apply(self, x: Tensor) -> Tensor:
        """Round inputs [..., I]."""
        if self.scale is None:
            return round_tokens(x, self.bits, symmetric=self.symmetric, clip=self.clip)
        return on_scale(x, self.scale.to(x.device), self.bits)


def on_scale(x: Tensor, scale: Tensor, bits: int, zero: Tensor | None = None) -> Tensor:
    """Round to ``2**bits`` multiples of scales that broadcast to ``x``.

    One more of them lies below 0 than above; with a ``zero``, so many as that says. Gradients are
    those of LSQ (arXiv 1902.08153), of the scale, too.
    """
    below: float | Tensor = 1 << (bits - 1) if zero is None else zero.float()
    found: Tensor = applied(_OnScale, x.float(), scale, -below, (1 << bits) - 1 - below)
    return found.to(x.dtype)


class _OnScale(torch.autograd.Function):
    """``clamp(round(x / scale), low, high) * scale``.

    All of it happens in the one tensor that is made, and gradients need no more than ``x``: this
    runs before every layer, and operations by themselves took a fifth of a small network's time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, low: Any, high: Any) -> Tensor:
        codes = reuse(reuse(x / scale, "round"), "clamp", low, high)
        return reuse(codes, "mul", scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, scale, *ctx.ends = inputs
        ctx.save_for_backward(x, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        values = x / scale
        rounded = values.round()
        codes = rounded.clamp(*ctx.ends)
        # 1 within the grid, 0 beyond: in numbers, as booleans take a processor ten times as long.
        within = 1 - rounded.sub_(codes).abs_().sign_()
        of_scale = None
        if ctx.needs_input_grad[1]:
            moved = codes.sub_(values.mul_(within)) * grads[0]
            of_scale = moved.sum_to_size(scale.shape)
        return within * grads[0], of_scale, None, None


@torch.no_grad()
def searched_scale(samples: Sequence[Tensor], bits: int) -> Tensor:
    """The scale of least squared error among shares of the greatest magnitude, [1] float32.

    Parameters
    ----------
    samples : sequence of [..., I]
        What is to be rounded.
    bits : int
    """
    peak = max(float(x.abs().amax()) for x in samples)
    top = (1 << (bits - 1)) - 1
    best, least = torch.ones(1), float("inf")
    for share in SHARES if peak else ():
        scale = torch.tensor([peak * share / top], device=samples[0].device)
        error = sum(float((on_scale(x, scale, bits) - x).double().square().sum()) for x in samples)
        if error < least:
            best, least = scale, error
    return best.to(samples[0].device)
