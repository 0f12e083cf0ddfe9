"""How much each layer's rounding alone costs at the output: for mixed precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import as_it_was, call_model, tensors_of
from vq.errors import ConfigError
from vq.layers import plain_weight
from vq.learning.rules.quality import sqnr_db

__all__ = ["sqnr_alone"]


@torch.no_grad()
def sqnr_alone(
    model: nn.Module, rounded: Mapping[str, Tensor], calls: Sequence[Any]
) -> dict[str, float]:
    """Signal to quantisation noise at the output with one layer's weight replaced at a time.

    Parameters
    ----------
    model : nn.Module
    rounded : mapping of layer name to Tensor
        What its weight would become.
    calls : sequence
        Inputs of the model (:mod:`vq.calibration.batches`).

    Returns
    -------
    dict of layer name to float
        In decibels, the most sensitive layer first.

    Raises
    ------
    ConfigError
        If there are no calls, or a layer's weight is no plain parameter.
    """
    if not calls:
        raise ConfigError("sensitivity must be measured on at least one call, not none")
    found = {}
    with as_it_was(model):
        model.eval()
        wanted = _outputs(model, calls)
        for name, weight in rounded.items():
            own = plain_weight(model.get_submodule(name))
            if own is None:
                raise ConfigError(f"layer {name!r}: weight must be a plain parameter to replace")
            before = own.data
            try:
                own.data = weight.to(before)
                found[name] = sqnr_db(_outputs(model, calls), wanted)
            finally:
                own.data = before
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _outputs(model: nn.Module, calls: Sequence[Any]) -> Tensor:
    outputs = [call_model(model, inputs) for inputs in calls]
    return torch.cat([t.flatten() for t in tensors_of(outputs) if t.is_floating_point()])
