"""What a method is made of, as plain settings, and the learning weight of a layer by them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vq.container import Geometry
from vq.errors import ConfigError, bulleted
from vq.formats.grids import range_grid
from vq.layers import matrix_of
from vq.perturbation.clipping import Clipping
from vq.perturbation.equivalence import Around
from vq.perturbation.mask import Mask
from vq.perturbation.moves import FreeMove, SingularMove, steady_rate
from vq.perturbation.weight import LearnedWeight

__all__ = ["Clip", "Composition", "Equalise", "Perturb"]


@dataclass(frozen=True)
class Clip:
    """Learnable clipping of every group's range.

    Attributes
    ----------
    rate : float
        Of gamma and beta; for some hundred steps. The published code has 1e-2, for 2,560.
    start : float
        Of both; 4 keeps 0.982 of the range.
    """

    rate: float = 1e-1
    start: float = 4.0

    def __post_init__(self) -> None:
        _check("clipping", self.rate)
        if not math.isfinite(self.start):
            raise ConfigError(bulleted("clipping", [f"start must be finite, not {self.start!r}"]))


@dataclass(frozen=True)
class Perturb:
    """A move of the weight before it is rounded.

    Attributes
    ----------
    mask : Mask or None
        Of what lies between the singular vectors; without one, every weight moves by itself.
    rate : float
        By how much of its grid's step a step of Adam moves a weight, in the root mean square
        (:func:`vq.perturbation.moves.steady_rate`): the singular values of a small network are not
        in the size of a large one's, but its grid is what both must get across.
    """

    mask: Mask | None = Mask()  # noqa: RUF009 - frozen
    rate: float = 3e-2

    def __post_init__(self) -> None:
        _check("perturbation", self.rate)


@dataclass(frozen=True)
class Equalise:
    """Learnable scales between what gives a tensor and what reads it, exact but for rounding.

    Norms and the linears behind them (with shifts, where all have biases), values and outputs of
    attention, queries and keys.

    Attributes
    ----------
    rate : float
        Of logarithms of scales, and of shifts in units of what the norm gives. The published code
        has 5e-3, of scales and shifts themselves.
    strength : float
        How much of the activations' range goes over to the weights at the start, 0 to 1.
    least : float
        Of any scale at the start.
    """

    rate: float = 1e-2
    strength: float = 0.5
    least: float = 1e-2

    def __post_init__(self) -> None:
        _check("equalisation", self.rate)
        problems = []
        if not 0 <= self.strength <= 1:
            problems.append(f"strength must be from 0 to 1, not {self.strength!r}")
        if not 0 < self.least < math.inf:
            problems.append(f"least must be positive, not {self.least!r}")
        if problems:
            raise ConfigError(bulleted("equalisation", problems))


@dataclass(frozen=True)
class Composition:
    """Parts of a method; each may be absent.

    Attributes
    ----------
    perturbation : Perturb or None
    clipping : Clip or None
    equalisation : Equalise or None
    """

    perturbation: Perturb | None = None
    clipping: Clip | None = None
    equalisation: Equalise | None = None

    def __post_init__(self) -> None:
        if not any((self.perturbation, self.clipping, self.equalisation)):
            raise ConfigError("composition must hold one part at least, not none")

    def problems(self, g: Geometry) -> list[str]:
        """Everything that keeps these parts from a layer."""
        mask = None if self.perturbation is None else self.perturbation.mask
        return [] if mask is None else mask.problems(min(g.O, g.I))

    def weight(self, g: Geometry, weight: Tensor, around: Around | None = None) -> LearnedWeight:
        """Learning weight of a layer, which starts from its original one, among its pairs."""
        matrix = matrix_of(weight, g.op, g.axis).float()
        clipping = None
        if self.clipping is not None:
            clipping = Clipping(g, self.clipping.start, self.clipping.rate, weight.device)
        return LearnedWeight(g, weight.dtype, self._moves(g, matrix), clipping, around)

    def _moves(self, g: Geometry, matrix: Tensor) -> list[nn.Module]:
        if self.perturbation is None:
            return []
        mask, share = self.perturbation.mask, self.perturbation.rate
        count = matrix.numel() if mask is None else int(mask.entries(min(g.O, g.I)).sum())
        scale = float(range_grid(matrix, g).scale.mean())
        rate = steady_rate(share, scale, matrix.numel(), count)
        with torch.no_grad():
            return [FreeMove(matrix, rate) if mask is None else SingularMove(matrix, mask, rate)]


def _check(part: str, rate: float) -> None:
    if not 0 < rate < math.inf:
        raise ConfigError(bulleted(part, [f"rate must be positive, not {rate!r}"]))
