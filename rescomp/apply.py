"""A solver's codes in place of a module's weight, as the compressed weights of :mod:`vq` are."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rescomp.quantize import Quantized
from vq.container import Geometry, Layer
from vq.formats.integers import round_through
from vq.formats.weights import Compressed, GroupedWeight
from vq.layers import matrix_of, weight_of

__all__ = ["FixedInt8", "replace_weight"]


class FixedInt8(Compressed):
    """Eight-bit integers on a given scale per output; trains the weight itself (``original``).

    :class:`vq.formats.weights.Int8Weight` takes its scale from the greatest weight of an output;
    codes that a solver has chosen need not reach 127.

    Buffers
    -------
    scale : [O] float32
    """

    scale: Tensor

    def __init__(self, geometry: Geometry, weight: Tensor, scale: Tensor) -> None:
        super().__init__(geometry, weight.dtype)
        self.register_buffer("scale", scale)

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight.detach().float().clone(),)

    def integers(self, weight: Tensor) -> Tensor:
        """Matrix of whole numbers [O, I]."""
        matrix = matrix_of(weight, self.geometry.op, self.geometry.axis)
        return round_through(matrix / self.scale[:, None]) + 0.0  # a decoder knows no negative zero

    def forward(self, weight: Tensor) -> Tensor:
        g = self.geometry
        matrix = self.integers(weight) * self.scale[:, None]
        return weight_of(matrix, g.shape, g.op, g.axis).to(self.dtype)

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        g = self.geometry
        return Layer.int8(
            name,
            integers=self.integers(originals[0].detach()).cpu().numpy().astype(np.int8),
            scale=self.scale.cpu().numpy(),
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
        )


def replace_weight(modules: Sequence[nn.Module], found: Quantized) -> None:
    """Parametrise the modules that share a weight by a quantised one.

    Their weight is then what every reader of the stored layer decodes, in the modules' own dtype.
    """
    g = found.geometry
    weight = modules[0].weight
    assert isinstance(weight, nn.Parameter)
    decoded = weight_of(found.weight, g.shape, g.op, g.axis).to(weight.device)
    scale = found.grid.scale.to(weight.device)
    zero = None if found.grid.zero is None else found.grid.zero.to(weight.device)
    compressed: Compressed
    if g.method == "int8":
        compressed = FixedInt8(g, weight, scale[:, 0].contiguous())
    else:
        compressed = GroupedWeight(g, weight, type(found.grid)(scale, zero))
    first: nn.Parameter | None = None
    for module in modules:
        if first is not None:
            compressed.share()
        parametrize.register_parametrization(module, "weight", compressed)
        chain = module.get_submodule("parametrizations.weight")
        ((name, original),) = chain.named_parameters(recurse=False)
        if first is None:
            # In fp32 also where the module is not, so that every code rounds to itself.
            original.data = decoded.contiguous()
            first = original
        setattr(chain, name, first)
