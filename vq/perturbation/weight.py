"""A weight while it learns: moved, clipped, rounded straight through, decoded."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.container import Geometry
from vq.formats.grids import Grid, ends_of, grouped, levels_of, spanning
from vq.formats.integers import round_through
from vq.layers import matrix_of, weight_of
from vq.perturbation.clipping import Clipping
from vq.perturbation.equivalence import Around

__all__ = ["LearnedWeight"]


class LearnedWeight(nn.Module):
    """Parametrisation that gives, at every moment, what would be decoded if training ended there.

    ``original -> moves -> pairs -> ends of groups -> clipping -> scales, zeros -> codes ->
    decoded``: each move, the pairs and the clipping may be there or not. The grid follows the moved
    and scaled weight, whose own least and greatest entries have gradients for it. Scales and zeros
    are rounded as the file has them, fp16 and uint8, and zeros have no gradient. A code at an end
    of its range passes no gradient to its weight.

    Parameters
    ----------
    geometry : Geometry
        Of an int8, int4, int3 or int2 layer.
    dtype : torch.dtype
        Of the weight that the module sees.
    moves : sequence of nn.Module
        As in :mod:`vq.perturbation.moves`; they may share parameters with those of other layers.
    clipping : Clipping or None
    around : Around, optional
        What pairs with other layers do to it; their numbers are not in :meth:`groups`.
    """

    def __init__(
        self,
        geometry: Geometry,
        dtype: torch.dtype,
        moves: Sequence[nn.Module],
        clipping: Clipping | None,
        around: Around | None = None,
    ) -> None:
        super().__init__()
        self._geometry, self._dtype = geometry, dtype
        self.moves, self.clipping, self.around = nn.ModuleList(moves), clipping, around

    def forward(self, weight: Tensor) -> Tensor:
        """Decoded weight, as its module holds it, of the original one."""
        g = self._geometry
        codes, scale, _ = self._coded(weight)
        decoded = (codes * scale[:, :, None]).reshape(g.O, -1)[:, : g.I]
        return weight_of(decoded, g.shape, g.op, g.axis).to(self._dtype)

    def moved(self, weight: Tensor) -> Tensor:
        """What is rounded, before pairs scale it, [O, I] float32."""
        matrix = matrix_of(weight, self._geometry.op, self._geometry.axis).float()
        for move in self.moves:
            matrix = move(matrix)
        return matrix

    @torch.no_grad()
    def read(self, weight: Tensor) -> tuple[Tensor, Grid]:
        """Codes minus zeros, [O, I] int8, and their grid, as a container stores them."""
        g = self._geometry
        codes, scale, zero = self._coded(weight)
        return codes.reshape(g.O, -1)[:, : g.I].to(torch.int8), Grid(scale, zero)

    def groups(self) -> list[dict[str, Any]]:
        """What learns, as torch's optimisers take it."""
        parts: list[Any] = [*self.moves, *([] if self.clipping is None else [self.clipping])]
        return [
            {"params": list(part.parameters()), "lr": part.rate, "weight_decay": 0.0}
            for part in parts
        ]

    def _coded(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes minus zeros [O, groups of an output, width], scales and zeros [O, groups]."""
        g, matrix = self._geometry, self.moved(weight)
        if self.around is not None:
            matrix = self.around(matrix)
        low, high = ends_of(matrix, g)
        if self.clipping is not None:
            low, high = self.clipping(low, high)
        scale, zero = spanning(low, high, g)
        levels = levels_of(g, None if zero is None else zero[:, :, None])
        codes = round_through(grouped(matrix, g) / scale[:, :, None], -math.inf, math.inf)
        return codes.clamp(*levels), scale, zero
