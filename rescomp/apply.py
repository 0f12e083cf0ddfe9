"""A solver's codes in place of a module's weight, as the compressed weights of :mod:`vq` are."""

from collections.abc import Sequence

from torch import nn

from rescomp.codebooks.quantize import Coded
from rescomp.quantize import Quantized
from vq.formats.scalar_weights import use_codes
from vq.formats.weights import attach_all

__all__ = ["replace_weight"]


def replace_weight(
    modules: Sequence[nn.Module], found: Quantized | Coded, codebooks: dict[str, nn.Parameter]
) -> None:
    """Parametrise the modules that share a weight by a quantised one.

    Their weight is then what every reader of the stored layer decodes, in the modules' own dtype.

    Parameters
    ----------
    modules : sequence of nn.Module
    found : Quantized or Coded
    codebooks : dict of name to Parameter
        Of the layers before; layers that share one train the same.
    """
    if isinstance(found, Quantized):
        use_codes(modules, found.geometry, found.integers, found.grid)
        return
    weight = modules[0].weight
    assert isinstance(weight, nn.Parameter)
    trained = {role: part.to(weight.device) for role, part in found.trained().items()}
    attach_all(modules, found.compressed(weight), trained, codebooks)
