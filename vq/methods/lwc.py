"""LWC: learnable weight clipping, the weight-only part of OmniQuant (arXiv 2308.13137).

The published code tells the quantiser, its start, its rate and its loss; the cosine, the rounding
of scales to fp16 while they learn, the relative loss and the early stop are ours.
"""

from collections.abc import Iterable
from typing import Unpack

from torch import nn

from vq.calibration.batches import Batch
from vq.perturbation.composition import Clip, Composition
from vq.perturbation.door import LearnedResult, Running, learn_scalars_
from vq.recipe.recipe import Recipe

__all__ = ["lwc_"]


def lwc_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    clip: Clip = Clip(),  # noqa: B008 - frozen
    **running: Unpack[Running],
) -> LearnedResult:
    """Learn how much of its range every group of weights keeps.

    1. ``hi = sigmoid(gamma) max(W)``, ``lo = sigmoid(beta) min(W)`` of every group, both from 4 on.
    2. ``s = (hi - lo) / (2^b - 1)``, ``z = round(-lo / s)``, ``q = clamp(round(W / s) + z)``;
       symmetric groups have ``s = sigmoid(gamma) max|W| / ((2^b - 1) / 2)``.
    3. gamma and beta learn, straight through the rounding, to keep what the block gives.

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    clip : Clip
    running
        As there.
    """
    return learn_scalars_(model, batches, recipe, Composition(clipping=clip), **running)
