"""A solver's codes in place of a module's weight, as the compressed weights of :mod:`vq` are."""

from collections.abc import Sequence

from torch import Tensor, nn

from rescomp.codebooks.quantize import Coded
from rescomp.quantize import Quantized
from vq.formats.grids import Grid
from vq.formats.scalar_weights import ScalarWeight
from vq.formats.weights import Compressed, attach
from vq.layers import weight_of

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
    weight = modules[0].weight
    assert isinstance(weight, nn.Parameter)
    compressed, trained = (
        _codewords(found, weight) if isinstance(found, Coded) else _scalars(found, weight)
    )
    originals: dict[str, nn.Parameter] = {}
    for module in modules:
        if originals:
            compressed.share()
        chain = attach(module, compressed)
        for place, (name, own) in enumerate(list(chain.named_parameters(recurse=False))):
            if name not in originals:
                # In fp32 also where the module is not, so that every code stands for itself.
                own.data = trained[compressed.roles[place]]
                if compressed.roles[place] == "codebook":
                    own = codebooks.setdefault(found.geometry.codebook, own)
                originals[name] = own
            setattr(chain, name, originals[name])


def _scalars(found: Quantized, weight: Tensor) -> tuple[Compressed, dict[str, Tensor]]:
    g = found.geometry
    decoded = weight_of(found.weight, g.shape, g.op, g.axis).to(weight.device).contiguous()
    scale = found.grid.scale.to(weight.device)
    zero = None if found.grid.zero is None else found.grid.zero.to(weight.device)
    return ScalarWeight(g, weight, Grid(scale, zero)), {"weight": decoded}


def _codewords(found: Coded, weight: Tensor) -> tuple[Compressed, dict[str, Tensor]]:
    trained = {role: part.to(weight.device) for role, part in found.trained().items()}
    return found.compressed(weight), trained
