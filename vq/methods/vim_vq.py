"""ViM-VQ: post-training vector quantisation of Vision Mamba (arXiv 2503.09509).

The abstract tells the parts: a convex combination of candidates, whose hull moves to better
codewords while it trains, and incremental confirmation, so that nothing is truncated in the end.
How often, how many, and the loss are ours.
"""

from collections.abc import Iterable, Sequence
from typing import Unpack

from torch import Tensor, nn

from vq.calibration.batches import Batch
from vq.learning.objective import Loss, soft_cross_entropy
from vq.learning.observed import Seen, block_error
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult
from vq.learning.rules.candidates import Candidates
from vq.methods.assignments import Training, learn

__all__ = ["RATES", "vim_vq_"]

#: Scales learn, too: outliers need not be in the codebook.
RATES = Rates(signs=1e-2, codebooks=1e-2, rest=1e-3, scales=1e-3, kept=0)


def vim_vq_(
    model: nn.Module,
    images: Iterable[Batch],
    teacher: nn.Module,
    *,
    n: int = 4,
    replace_steps: int | None = 10,
    towards: str = "point",
    forced: tuple[float, float] | None = (0.5, 0.85),
    threshold: float = 0.99,
    penalty: float = 0.0,
    loss: Loss | None = None,
    rates: Rates = RATES,
    epochs: int = 20,
    blocks: Sequence[str] | None = None,
    **training: Unpack[Training],
) -> FinetuneResult:
    """Learn codebooks and assignments from unlabelled images.

    1. Every sub-vector is a convex combination of the ``n`` codewords nearest to it.
    2. The loss is the error of what the blocks give, relative to its variance, and the divergence
       of the logits from the teacher's.
    3. Every ``replace_steps`` steps, the vertex that weighs least gives way to a codeword nearer to
       the combination, or to where it is going.
    4. Sub-vectors that are decided are confirmed one after the other, and the others make up for
       them; the last part of the run trains the rest of the model with hard assignments.

    Parameters
    ----------
    model : nn.Module
        Compressed; scales learn where it stores them.
    images : iterable of batches
        Targets are ignored.
    teacher : nn.Module
        The model before compression.
    n, replace_steps, towards, forced, threshold, penalty
        Of :class:`vq.Candidates`. Without ``forced`` and with ``threshold=1``, all are rounded once
        in the end.
    loss : callable, optional
        ``loss(outputs, teacher's outputs)``; if not given, the divergence of logits.
    rates : Rates
    epochs : int
    blocks : sequence of str, optional
        If not given, they are found (:func:`vq.learning.observed.blocks_of`).
    training
        As in :func:`vq.finetune_`, which tells the errors, too.
    """
    candidates = Candidates(
        n,
        teacher,
        replace_steps=replace_steps,
        towards=towards,
        forced=forced,
        threshold=threshold,
        penalty=penalty,
    )
    return learn(
        model, images, teacher, candidates, _Distance(loss or _divergence), rates,
        blocks=blocks, epochs=epochs, training=training,
    )  # fmt: skip


class _Distance:
    """Of blocks and outputs."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def __call__(self, seen: Seen, wanted: Seen) -> Tensor:
        return block_error(seen, wanted, relative=True) + self._loss(seen.result, wanted.result)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return soft_cross_entropy(student, teacher, 1.0)
