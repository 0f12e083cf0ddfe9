"""A solver's codes in place of a module's weight, as the compressed weights of :mod:`vq` are."""

from collections.abc import Sequence

from torch import nn

from rescomp.quantize import Quantized
from vq.formats.grids import Grid
from vq.formats.scalar_weights import ScalarWeight
from vq.formats.weights import attach
from vq.layers import weight_of

__all__ = ["replace_weight"]


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
    compressed = ScalarWeight(g, weight, Grid(scale, zero))
    first: nn.Parameter | None = None
    for module in modules:
        if first is not None:
            compressed.share()
        chain = attach(module, compressed)
        ((name, original),) = chain.named_parameters(recurse=False)
        if first is None:
            # In fp32 also where the module is not, so that every code rounds to itself.
            original.data = decoded.contiguous()
            first = original
        setattr(chain, name, first)
