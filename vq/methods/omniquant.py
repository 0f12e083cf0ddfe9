"""OmniQuant (arXiv 2308.13137): learnable clipping (LWC) and equivalent transformation (LET).

The published code tells both quantisers, the start of scales and shifts, their pairs, rates and the
loss. Scales in logarithms and their rate, shifts in units of what a norm gives, the start at 1
where that is better, how pairs are found, and all that :mod:`vq.methods.lwc` names are ours; so is
that values are scaled, but not shifted.
"""

from collections.abc import Iterable
from typing import Unpack

from torch import nn

from vq.calibration.batches import Batch
from vq.perturbation.composition import Clip, Composition, Equalise, Perturb
from vq.perturbation.door import LearnedResult, Running, learn_scalars_
from vq.recipe.recipe import Recipe

__all__ = ["omniquant_"]


def omniquant_(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    clip: Clip | None = Clip(),  # noqa: B008 - frozen
    equalise: Equalise | None = Equalise(),  # noqa: B008 - frozen
    perturb: Perturb | None = None,
    **running: Unpack[Running],
) -> LearnedResult:
    """Learn clipping, and scales between what gives a tensor and what reads it.

    1. Norm and the linears that read it: ``gain / s``, ``(bias - h) / s``, columns of W times s,
       and ``W h`` added to their biases; h only where all of them have biases.
    2. Values and output of attention: rows and bias of the values ``/ s``, columns of the output
       times s. Queries and keys: rows and biases ``/ s`` and times s, with one s for what a rotary
       embedding turns together. Heads that share keys and values share s.
    3. W as scaled is rounded as in :func:`vq.methods.lwc.lwc_`; s, h, gamma and beta learn at once.
    4. ``perturb`` adds what :func:`vq.methods.sde.sde_` learns, in front of the scales.

    ``omniquant_(..., perturb=Perturb(Mask(16)), look_ahead=1)`` is OmniQuant with SDE and CL. With
    ``activations``, what norms and attention give is rounded with its scales.

    Parameters
    ----------
    model, batches, recipe
        As in :func:`vq.perturbation.door.learn_scalars_`, which tells the errors, too.
    clip : Clip or None
    equalise : Equalise or None
    perturb : Perturb or None
    running
        As there.
    """
    parts = Composition(perturb, clip, equalise)
    return learn_scalars_(model, batches, recipe, parts, **running)
