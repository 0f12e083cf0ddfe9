"""Which entries of the matrix between two sets of singular vectors learn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vq.errors import ConfigError, bulleted

__all__ = ["Mask"]


@dataclass(frozen=True)
class Mask:
    """Entries (i, j) of D [r, r]: a band, a corner, or as many as these have, anywhere.

    Attributes
    ----------
    width : int
        Of a band, ``|i - j| <= width``; 0 is the diagonal.
    corner : int
        Of a square of ``corner`` rows and columns among the leading directions.
    random : int or None
        Seed of a control: as many entries, drawn from all.
    """

    width: int = 0
    corner: int = 0
    random: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} must not be negative, not {value!r}"
            for name in ("width", "corner", "random")
            if (value := getattr(self, name)) is not None and value < 0
        ]
        if problems:
            raise ConfigError(bulleted("perturbation", problems))

    def problems(self, rank: int) -> list[str]:
        """Everything that keeps this mask from a matrix of a rank."""
        found = []
        if self.width >= rank:
            found.append(f"width must be below its rank, {rank}, not {self.width}")
        if self.corner > rank:
            found.append(f"corner must be at most its rank, {rank}, not {self.corner}")
        return found

    def entries(self, rank: int) -> Tensor:
        """What learns, [rank, rank] bool.

        >>> Mask(width=1).entries(3).int().tolist()
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
        """
        at = torch.arange(rank)
        within = at < self.corner
        free = ((at[:, None] - at).abs() <= self.width) | (within[:, None] & within)
        if self.random is None:
            return free
        generator = torch.Generator().manual_seed(self.random)
        order = torch.randperm(rank * rank, generator=generator)
        drawn = torch.zeros(rank * rank, dtype=torch.bool)
        drawn[order[: int(free.sum())]] = True
        return drawn.reshape(rank, rank)
