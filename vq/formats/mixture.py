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
    logits : [L, n] float32
        Trained; their softmax weighs the candidates.
    """

    def __init__(self, rows: Tensor, candidates: Tensor, logits: Tensor) -> None:
        self.rows, self.candidates, self.logits = rows, candidates, logits

    def ratios(self) -> Tensor:
        """What each candidate weighs, [L, n]; rows sum to 1."""
        return self.logits.softmax(dim=1)

    def values(self, book: Tensor) -> Tensor:
        """The combinations of codewords of ``book`` [k, d], [L, d]."""
        return nn.functional.embedding_bag(
            self.candidates, book, mode="sum", per_sample_weights=self.ratios()
        )

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
