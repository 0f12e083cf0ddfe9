"""Sub-vectors that have not decided yet: each a convex combination of some codewords.

It stands for the indices of a codebook weight while candidates compete
(:mod:`vq.learning.rules.candidates`), and is never stored.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vq.formats.integers import applied, reuse
from vq.formats.weights import FROZEN

__all__ = ["Mixture", "signed"]


class Mixture:
    """Candidates of the sub-vectors of one layer that are undecided, and how they are weighed.

    Attributes
    ----------
    rows : [L] int64
        The sub-vectors, in grid order, ascending.
    candidates : [L, n] int32
        Codewords that each may become.
    logits : [L, n] float32 Parameter
        Their softmax weighs the candidates.

    Both lie in memory column by column: ``n`` is too small a number to work along.
    """

    def __init__(self, rows: Tensor, candidates: Tensor, logits: Tensor) -> None:
        self.rows, self.candidates = rows, _by_columns(candidates)
        self.logits = nn.Parameter(_by_columns(logits.detach()))

    def ratios(self) -> Tensor:
        """What each candidate weighs, [L, n]; rows sum to 1."""
        return self.logits.T.softmax(dim=0).T

    def values(self, book: Tensor) -> Tensor:
        """The combinations of codewords of ``book`` [k, d], [L, d]."""
        found: Tensor = applied(_Combine, self.logits.T, book, self.candidates.T)
        return found

    def among(self, decided: Tensor, book: Tensor) -> Tensor:
        """All sub-vectors [N, d], of which ``decided`` [N, d] are those of the indices."""
        return decided.index_copy(0, self.rows, self.values(book))

    def covers(self, indices: Tensor) -> bool:
        """Whether no sub-vector has decided."""
        return len(self.rows) == len(indices)


def signed(values: Tensor, latent: Tensor) -> Tensor:
    """Give magnitudes [N, d] the signs of latents, whose gradients pass straight through."""
    found: Tensor = applied(_Signed, values, latent)
    return found


def _by_columns(matrix: Tensor) -> Tensor:
    return matrix.T.contiguous().T


def _gathered(book: Tensor, candidates: Tensor) -> Tensor:
    """Codewords [n, L, d] of candidates [n, L]."""
    return book.index_select(0, candidates.flatten()).view(*candidates.shape, -1)


class _Combine(torch.autograd.Function):
    """Combinations [L, d] of codewords by logits [n, L], holding no codeword for the way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, book: Tensor, candidates: Tensor) -> Tensor:
        return (logits.softmax(dim=0)[..., None] * _gathered(book, candidates)).sum(dim=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        logits, book, candidates = ctx.saved_tensors
        ratios = logits.softmax(dim=0)
        slopes = (_gathered(book, candidates) * grad).sum(dim=2)
        grad_logits = ratios * (slopes - (ratios * slopes).sum(dim=0))
        if not ctx.needs_input_grad[1]:
            return grad_logits, None, None
        parts = (ratios[..., None] * grad).flatten(0, 1)
        # With 64-bit indices, index_add_ has a path four times as fast.
        grad_book = reuse(
            torch.zeros_like(book), "index_add", 0, candidates.flatten().long(), parts
        )
        return grad_logits, grad_book, None


class _Signed(torch.autograd.Function):
    """What :class:`vq.formats.codebook_weights._Gather` does to signs, on values that are there."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, latent: Tensor) -> Tensor:
        return torch.copysign(values, latent)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        values, latent = ctx.saved_tensors
        grad_values = reuse(torch.copysign(values.new_ones(()), latent), "mul", grad)
        frozen = latent.abs() >= FROZEN
        return grad_values, reuse(values * grad, "masked_fill", frozen, 0)
