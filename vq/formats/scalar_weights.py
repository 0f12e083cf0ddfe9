"""Weights of the scalar formats: whole numbers on a grid, trained straight through the rounding."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from vq.container import Geometry, Layer
from vq.container.constants import FP16_MAX, FP16_MIN
from vq.formats.grids import Grid, levels_of, on_grid, range_grid, spread
from vq.formats.integers import half_through, round_through
from vq.formats.weights import Compressed, attach_all
from vq.layers import matrix_of, weight_of

__all__ = ["ScalarWeight", "rounded", "use_codes"]


class ScalarWeight(Compressed):
    """Whole numbers of a few bits: ``weight = (code - zero) * scale``, a scale for every group.

    Trains the weight itself, straight through its rounding to the nearest level. A grid stays as
    it was given: weights that training pushes past its ends saturate. Without one, which int8
    allows, the scale of every output follows its greatest weight.

    Steps of a grid that stays can learn, too (:meth:`free_steps`), by the gradient of LSQ (arXiv
    1902.08153): inside the grid ``round(w / s) - w / s``, beyond its ends the last level, and only
    there no gradient reaches the weight. What is computed with is what fp16 holds of them.

    Codes that something better than rounding has chosen go the same way: make the module's weight
    what they decode to on their grid, and every one of them rounds to itself.

    Buffers
    -------
    scale : [O, groups of an output] float32, or None
        Numbers that fp16 holds, but for int8.
    zero : uint8, shaped like ``scale``, or None where the layer stores no zeros
    gain : shaped like ``scale``, or None
        What multiplies it while it learns.
    """

    roles = ("weight",)
    scale: Tensor | None
    zero: Tensor | None
    gain: nn.Parameter | None

    def __init__(self, geometry: Geometry, weight: Tensor, grid: Grid | None) -> None:
        super().__init__(geometry, weight.dtype)
        self.register_buffer("scale", None if grid is None else grid.scale)
        self.register_buffer("zero", None if grid is None else grid.zero)
        self.register_parameter("gain", None)

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.detach().float().clone(),)

    def free_steps(self) -> nn.Parameter | None:
        if self.scale is not None:
            self.gain = nn.Parameter(torch.ones_like(self.scale))
        return self.gain

    @torch.no_grad()
    def fix_steps(self) -> None:
        if self.gain is not None and self.scale is not None:
            self.scale.copy_(self._step(self.scale))
            self.gain = None

    def _step(self, scale: Tensor) -> Tensor:
        """The scale as it is computed with and stored."""
        if self.gain is None:
            return scale
        learnt = scale * self.gain
        return half_through(learnt.clamp(FP16_MIN, FP16_MAX)) if self.geometry.group else learnt

    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes minus zeros, [O, I] whole numbers, and scales [O, groups of an output]."""
        g = self.geometry
        matrix = matrix_of(weight, g.op, g.axis)
        if self.scale is None:
            scale = range_grid(matrix.detach(), g).scale
        else:
            scale = self._step(self.scale)
        low, high = levels_of(g, None if self.zero is None else spread(self.zero.float(), g))
        values = matrix / spread(scale, g)
        if self.gain is not None:
            values = values.clamp(low, high)
        return round_through(values, low, high), scale

    def codes(self, *originals: Tensor) -> Tensor:
        g = self.geometry
        return weight_of(self.integers(originals[0].detach())[0], g.shape, g.op, g.axis)

    def at_codes(self, codes: Tensor, *originals: Tensor) -> Tensor:
        g = self.geometry
        _, scale = self.integers(originals[0].detach())
        matrix = matrix_of(codes, g.op, g.axis) * spread(scale.detach(), g)
        return weight_of(matrix, g.shape, g.op, g.axis)

    def forward(self, weight: Tensor) -> Tensor:
        g = self.geometry
        integers, scale = self.integers(weight)
        found = weight_of(integers * spread(scale, g), g.shape, g.op, g.axis).to(self.dtype)
        # As a decoder gives it: convolutions take the layout of their weight for one of images,
        # and add up in another order there.
        return found.contiguous()

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        integers, scale = self.integers(originals[0].detach())
        return Layer.scalar(
            replace(self.geometry, name=name),
            integers.detach().cpu().numpy().astype(np.int8),
            scale.detach().cpu().numpy(),
            None if self.zero is None else self.zero.cpu().numpy(),
        )


def rounded(geometry: Geometry, weight: Tensor) -> ScalarWeight:
    """A weight rounded to the nearest levels of grids that span its groups.

    Raises
    ------
    WeightError
        If weights are too large for fp16 scales.
    """
    matrix = matrix_of(weight, geometry.op, geometry.axis).float()
    with torch.no_grad():
        return ScalarWeight(geometry, weight, range_grid(matrix, geometry))


def use_codes(
    modules: Sequence[nn.Module], geometry: Geometry, integers: Tensor, grid: Grid
) -> None:
    """Replace the weight that modules share by chosen codes on a grid.

    Their weight is then what every reader of the stored layer decodes, in the modules' own dtype.

    Parameters
    ----------
    modules : sequence of nn.Module
    geometry : Geometry
    integers : [O, I] int8
        Codes minus zeros.
    grid : Grid
    """
    weight = modules[0].weight
    assert isinstance(weight, nn.Parameter)
    g, device = geometry, weight.device
    own = Grid(grid.scale.to(device), None if grid.zero is None else grid.zero.to(device))
    decoded = weight_of(on_grid(integers.to(device), own, g), g.shape, g.op, g.axis)
    attach_all(modules, ScalarWeight(g, weight, own), {"weight": decoded.contiguous()})
