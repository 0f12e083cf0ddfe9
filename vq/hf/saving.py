"""What a compressed model of transformers needs beside its container, and whether it fits one."""

import copy
import functools
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vq.container import LAYOUT
from vq.container.constants import RUNTIME_LAYOUT
from vq.errors import ConfigError, bulleted
from vq.formats.kept import tied_tensors
from vq.formats.model import compressed_layers, is_compressed, provenance_of
from vq.formats.remaining import all_remaining
from vq.hf.quantizer import FILE, METHOD

__all__ = ["check_names", "config_json"]


def config_json(model: Any) -> str:
    """Text of ``config.json``: the model's own, and where and what the weights are."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(_dtype(model)).removeprefix("torch.")
    config.quantization_config = {
        "quant_method": METHOD,
        "layout": RUNTIME_LAYOUT if all_remaining(model) else LAYOUT,
        "file": FILE,
        "recipe": json.loads(provenance_of(model).recipe),
    }
    document = json.loads(config.to_json_string())
    document["transformers_weights"] = FILE  # where transformers looks for the weights
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _dtype(model: nn.Module) -> torch.dtype:
    """Narrowest dtype that rounds no parameter: transformers gives one to all of them."""
    found = [layer.weight.dtype for layer in compressed_layers(model)]
    found += [p.dtype for n, p in model.named_parameters() if ".parametrizations." not in n]
    return functools.reduce(torch.promote_types, (t for t in found if t.is_floating_point))


def check_names(model: Any) -> None:
    """Refuse what transformers could not put back in its place.

    Raises
    ------
    ConfigError
    """
    problems = [
        f"layer {layer.name!r}: must have the name it was compressed under, not be "
        f"{layer.weight.geometry.name!r} of a larger model"
        for layer in compressed_layers(model)
        if layer.name != layer.weight.geometry.name
    ]
    ties = model.all_tied_weights_keys
    for first, *others in _shared(model):
        problems += [
            f"tensor {name!r}: must be tied to {first!r} by the configuration, not only in memory"
            for name in others
            if ties.get(name, name) != ties.get(first, first)
        ]
    if problems:
        raise ConfigError(bulleted("model", problems))


def _shared(model: nn.Module) -> Iterator[list[str]]:
    """Names of each tensor of the dense model that has more than one."""
    weights: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if is_compressed(module):
            weight = module.get_submodule("parametrizations.weight.0")
            weights.setdefault(id(weight), []).append(f"{name}.weight")
    state = model.state_dict(keep_vars=True)
    kept = tied_tensors({n: t for n, t in state.items() if ".parametrizations." not in n})
    for names in [*weights.values(), *(names for names, _ in kept)]:
        if len(names) > 1:
            yield names
