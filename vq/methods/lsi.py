"""LSI: learnable singular-value increments (arXiv 2406.16299), with clipping beside them.

Reviews of the paper tell the equation, the corner for group-wise scales, the optimiser and its rate
for language models. That it starts at 0, the rule of the rate, and all that
:mod:`vq.methods.lwc` names are ours. Clipping learns from the first step on; in the paper it was
trained before.
"""

from collections.abc import Iterable
from typing import Unpack

from torch import nn

from vq.calibration.batches import Batch
from vq.methods.sde import sde_
from vq.perturbation.composition import Clip
from vq.perturbation.door import LearnedResult, Running
from vq.recipe.recipe import Recipe

__all__ = ["lsi_"]


def lsi_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    corner: int = 0,
    rate: float = 3e-2,
    clip: Clip | None = Clip(),  # noqa: B008 - frozen
    **running: Unpack[Running],
) -> LearnedResult:
    """Learn an increment of every singular value before the weight is rounded.

    1. ``W = U diag(S) V'`` once, ``W(I) = U diag(S + I) V' = W + U diag(I) V'``, I from 0 on.
    2. W(I) is rounded as in :func:`vq.methods.lwc.lwc_`; I, gamma and beta learn together.
    3. With groups, the n x n ``corner`` of leading directions learns as a dense matrix, too.

    It is :func:`vq.methods.sde.sde_` with a band of width 0.

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    corner : int
        n; 0 leaves it out.
    rate, clip, running
        As in :func:`vq.methods.sde.sde_`.
    """
    return sde_(model, batches, recipe, width=0, corner=corner, rate=rate, clip=clip, **running)
