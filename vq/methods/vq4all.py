"""VQ4ALL: networks that share one universal codebook, which hardware can hold (arXiv 2412.06875).

The abstract and third-party notes tell the parts: one codebook, sampled from the density of many
networks' sub-vectors and then frozen; assignments learnt from the task, the original's blocks and
the ratios; a network is constructed progressively. Numbers and schedules are ours.
"""

from collections.abc import Iterable, Sequence
from typing import Unpack

from torch import Tensor, nn

from vq.calibration.batches import Batch
from vq.learning.objective import Loss
from vq.learning.observed import Seen, block_error
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult
from vq.learning.rules.candidates import Candidates
from vq.methods.assignments import Training, learn

__all__ = ["RATES", "vq4all_"]

#: The codebook has none: it is fixed.
RATES = Rates(signs=1e-2, codebooks=0, rest=1e-3, scales=1e-3)


def vq4all_(
    model: nn.Module,
    batches: Iterable[Batch],
    teacher: nn.Module,
    *,
    n: int = 4,
    penalty: float = 0.1,
    term: str = "absolute",
    forced: tuple[float, float] | None = (0.5, 0.85),
    loss: Loss = nn.functional.cross_entropy,
    rates: Rates = RATES,
    epochs: int = 10,
    blocks: Sequence[str] | None = None,
    **training: Unpack[Training],
) -> FinetuneResult:
    """Construct one network from a codebook that it shares with others.

    1. Every sub-vector has ``n`` candidates in the universal codebook.
    2. The loss is the task's, the error of what the blocks give, relative to its variance, and the
       ratio term.
    3. What has decided is constructed for good; from half of the run on, a growing share must.

    Parameters
    ----------
    model : nn.Module
        Compressed with a fixed codebook (``vq.VQ(codebook=...)``, ``vq.SSVQ(codebook=...)``).
    batches : iterable of batches
        Inputs and targets.
    teacher : nn.Module
        The model before compression.
    n, penalty, term, forced
        Of :class:`vq.Candidates`.
    loss : callable
        ``loss(outputs, targets)``.
    rates : Rates
    epochs : int
    blocks : sequence of str, optional
        If not given, they are found (:func:`vq.learning.observed.blocks_of`).
    training
        As in :func:`vq.finetune_`, which tells the errors, too.
    """
    candidates = Candidates(n, teacher, penalty=penalty, term=term, forced=forced)
    return learn(
        model, batches, teacher, candidates, _distance, rates,
        task=loss, blocks=blocks, epochs=epochs, training=training,
    )  # fmt: skip


def _distance(seen: Seen, wanted: Seen) -> Tensor:
    return block_error(seen, wanted, relative=True)
