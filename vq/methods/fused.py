"""Linears that are several in one, as q, k and v often are, taken apart to have codebooks each."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.formats.remaining import require_plain

__all__ = ["Split", "split_fused_"]


class Split(nn.ModuleList):
    """Linears whose outputs stand side by side: the same as the one that they were."""

    def forward(self, x: Tensor) -> Tensor:
        """Give [..., outputs of all]."""
        return torch.cat([part(x) for part in self], dim=-1)


def split_fused_(model: nn.Module, names: Sequence[str] = ("*.qkv",), parts: int = 3) -> list[str]:
    """Take fused linears apart, in place; what the model gives stays the same.

    A file of a model that was taken apart is loaded into one that was, too.

    Parameters
    ----------
    model : nn.Module
        Not compressed yet.
    names : sequence of str
        Names or globs.
    parts : int
        Into so many, of equally many outputs.

    Returns
    -------
    list of str
        What was taken apart; ``NAME.0`` is the first part.

    Raises
    ------
    ConfigError
        If a name fits nothing, or what it fits is no linear with such a number of outputs.
    """
    require_plain(model, "taking layers apart")
    found: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in names)
    }
    if not found:
        raise ConfigError(f"fused layers {', '.join(names)} must be in the model, not none of them")
    for name, module in found.items():
        if type(module) is not nn.Linear or module.out_features % parts:
            raise ConfigError(
                f"layer {name!r} must be a linear with a multiple of {parts} outputs to be taken "
                f"apart, not {module}"
            )
    for name, module in found.items():
        assert isinstance(module, nn.Linear)
        parent, _, key = name.rpartition(".")
        setattr(model.get_submodule(parent), key, Split(_parts_of(module, parts)))
    return list(found)


def _parts_of(module: nn.Linear, parts: int) -> list[nn.Linear]:
    made = []
    for i in range(parts):
        outputs, inputs = module.out_features // parts, module.in_features
        part = nn.Linear(inputs, outputs, bias=module.bias is not None, device="meta")
        for name, whole in module.named_parameters():
            own = whole.detach().chunk(parts)[i].clone()
            setattr(part, name, nn.Parameter(own, whole.requires_grad))
        made.append(part)
    return made
