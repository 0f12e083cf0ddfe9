"""SDE with CL: expansion of the singular values' diagonal, and cross-layer loss (arXiv 2407.15508).

The abstract tells that the diagonal of singular values is expanded, that LSI is a special case,
that it adds to other methods (``omniquant_(..., perturb=Perturb(Mask(16)))``), and that a loss that
looks ahead evens out errors over layers. The paper's equations, widths, rates and tables are not
known to us: the band, its parametrisation, the rule of the rate and the sum of losses are a
reconstruction.
"""

from collections.abc import Iterable
from typing import Unpack

from torch import nn

from vq.calibration.batches import Batch
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.door import LearnedResult, Running, learn_scalars_
from vq.perturbation.mask import Mask
from vq.recipe.recipe import Recipe

__all__ = ["sde_"]


def sde_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    width: int = 16,
    corner: int = 0,
    random: int | None = None,
    full: bool = False,
    rate: float = 3e-2,
    clip: Clip | None = Clip(),  # noqa: B008 - frozen
    **running: Unpack[Running],
) -> LearnedResult:
    """Learn a band around the singular values before the weight is rounded.

    1. ``W = U diag(S) V'`` once, ``W(D) = W + U D V'``, with ``D[i, j] = 0`` where
       ``|i - j| > width``, and D from 0 on, which gives W bit for bit.
    2. W(D) is rounded as in :func:`vq.methods.lwc.lwc_`; D, gamma and beta learn together.
    3. CL: with ``look_ahead=M``, the block's loss is added to those behind the M blocks that
       follow, unquantised, on what it gives.
    4. What is stored are the integers of W(D): U, V and D are gone.

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    width : int
        Of the band, below the rank of every layer.
    corner : int
        Further entries of D: a square among the leading directions.
    random : int, optional
        Seed of a control: as many entries as band and corner have, drawn from all of D.
    full : bool
        A control: all weights learn, each by itself, without singular vectors.
    rate : float
        By how much of its grid's step a step of Adam moves a weight, in the root mean square. The
        learning rate of D is that times ``s sqrt(O I / n)``, with s the mean scale and n entries
        that learn: D has the size of singular values, which are not alike in small and large
        networks.
    clip : Clip or None
    running
        As there.
    """
    move = Perturb(None if full else Mask(width, corner, random), rate)
    return learn_scalars_(model, batches, recipe, Composition(move, clip), **running)
