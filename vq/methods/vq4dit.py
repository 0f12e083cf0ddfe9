"""VQ4DiT: post-training vector quantisation of diffusion transformers (arXiv 2408.17131).

Without data: the full-precision model samples, and the quantised one learns to do what it does at
every step, block by block, choosing among the codewords that are nearest to its sub-vectors.
"""

from collections.abc import Iterable, Sequence
from typing import Unpack

from torch import Tensor, nn

from vq.calibration.batches import Batch
from vq.learning.observed import Seen, block_error
from vq.learning.rates import Rates
from vq.learning.record import FinetuneResult
from vq.learning.rules.candidates import Candidates
from vq.methods.assignments import Training, learn

__all__ = ["RATES", "vq4dit_"]

#: Codebooks and biases, signs where they are split; norms and what was kept have theirs.
RATES = Rates(signs=1e-2, codebooks=1e-2, rest=1e-3, kept=0)


def vq4dit_(
    model: nn.Module,
    trajectories: Iterable[Batch],
    teacher: nn.Module,
    *,
    n: int = 2,
    begin: str = "distance",
    penalty: float = 1.0,
    term: str = "absolute",
    ratchet: bool = True,
    assignments_first: bool = False,
    rates: Rates = RATES,
    epochs: int = 6,
    blocks: Sequence[str] | None = None,
    **training: Unpack[Training],
) -> FinetuneResult:
    """Learn codebooks and assignments from the teacher's own sampling.

    1. Every sub-vector has ``n`` candidates, the nearest codewords (equation 5), weighed by ratios
       (6, 7) that start by inverse distance.
    2. The teacher samples (``trajectories``); at every step, both models see its noisy images.
    3. The loss is the squared error of what the blocks give, in the mean (8), and the ratio term
       (9), which only fights back-sliding: it is added where it is above its least in this pass.
    4. A candidate that weighs more than 0.99 becomes the assignment. From half of the run on, a
       growing share must decide; this schedule is ours.

    Parameters
    ----------
    model : nn.Module
        Compressed, with separate codebooks for q, k and v (:func:`vq.methods.fused.split_fused_`).
    trajectories : iterable of batches
        The inputs of every sampling step, one pass for each trajectory.
    teacher : nn.Module
        The model before compression.
    n : int
        1 learns codebooks and biases alone.
    begin : "distance" or "uniform"
        Ratios at the start: those of the published code, or the paper's 1 / n.
    penalty, term, ratchet
        Of the ratio term (:class:`vq.Candidates`).
    assignments_first : bool
        Codebooks wait until the assignments of their layers are final, as in the published code;
        the paper's equations, and we, let them learn together.
    rates : Rates
    epochs : int
        Trajectories.
    blocks : sequence of str, optional
        If not given, they are found (:func:`vq.learning.observed.blocks_of`).
    training
        As in :func:`vq.finetune_`, which tells the errors, too.
    """
    candidates = Candidates(
        n,
        teacher,
        begin=begin,
        penalty=penalty,
        term=term,
        ratchet=ratchet,
        codebook_waits=assignments_first,
    )
    return learn(
        model, trajectories, teacher, candidates, _distance, rates,
        blocks=blocks, epochs=epochs, training=training,
    )  # fmt: skip


def _distance(seen: Seen, wanted: Seen) -> Tensor:
    return block_error(seen, wanted, relative=False)
