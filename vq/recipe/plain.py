"""Models that can be compressed: bare, with shapes and values, their weights plain parameters."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from vq.distributed import local
from vq.errors import ConfigError, bulleted
from vq.formats.wrappers import bare, listed, wrapped_name
from vq.layers import plain_weight

__all__ = ["check_bare", "check_plain", "check_values"]

#: What makes the weight of a hook a parameter again, by the module that the hook is from.
_REMEDIES = {
    "torch.nn.utils.weight_norm": "torch.nn.utils.remove_weight_norm",
    "torch.nn.utils.spectral_norm": "torch.nn.utils.remove_spectral_norm",
    "torch.nn.utils.prune": "torch.nn.utils.prune.remove",
}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_bare(model: nn.Module) -> None:
    """Refuse a model that is wrapped, has no shapes yet, or holds adapters that are merged.

    Raises
    ------
    ConfigError
    """
    if bare(model) is not model:
        raise ConfigError(
            f"model must be bare, not in {type(model).__name__}; give its "
            f".{wrapped_name(model)}, and wrap it again afterwards"
        )
    if merged := [n for n, m in model.named_modules() if getattr(m, "merged", False) is True]:
        raise ConfigError(
            f"model must hold its adapters once, but {listed(merged)} are merged into weights "
            "beside them, and would be again in a loaded model; unmerge them, or leave them out"
        )


def check_plain(selected: Mapping[str, nn.Module]) -> None:
    """Refuse layers whose weight is computed, or no plain numbers; all of them in one error.

    Raises
    ------
    ConfigError
    """
    found = {name: _foreign(module) for name, module in selected.items()}
    problems = [
        f"layer {name!r}: weight must be a plain parameter of its own, {reason}, "
        f"or keep the layer by the rule {name!r}: None"
        for name, reason in found.items()
        if reason
    ]
    if problems:
        raise ConfigError(bulleted("model", problems))


def check_values(model: nn.Module) -> None:
    """Refuse a model whose tensors have no values, or not all of them here.

    Raises
    ------
    ConfigError
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if empty := [name for name, tensor in tensors if tensor.is_meta]:
        raise ConfigError(
            f"model must hold values, but {listed(empty)} are on the meta device; "
            "build it on another, or load its weights first"
        )
    if parts := [name for name, tensor in tensors if local(tensor) is not tensor]:
        raise ConfigError(
            f"model must be whole, but {listed(parts)} are sharded; gather them first "
            "(docs/training.md)"
        )


def _foreign(module: nn.Module) -> str | None:
    """Why a module's weight is not its own plain parameter, and what to do; None if it is."""
    if parametrize.is_parametrized(module, "weight"):
        chain = module.get_submodule("parametrizations.weight")
        kinds = " and ".join(type(part).__name__.strip("_") for part in chain.children())
        remedy = "torch.nn.utils.parametrize.remove_parametrizations"
        return f"not computed by {kinds}; make it one by {remedy}"
    weight = plain_weight(module)
    if weight is None:
        for hook in module._forward_pre_hooks.values():
            kind = type(hook)
            if kind.__module__ in _REMEDIES:
                remedy = _REMEDIES[kind.__module__]
                return f"not computed by {kind.__name__}; make it one by {remedy}"
        return "not a buffer or a property; make it one"
    if type(weight) is not nn.Parameter:
        return f"not {type(weight).__name__}; start from the original model"
    if weight.dtype not in _DTYPES or weight.layout != torch.strided:
        return f"not {weight.dtype} {weight.layout}; start from the original model"
    if not weight.numel():
        return f"not empty, {list(weight.shape)}; leave it out of the model"
    own = {name for name, _ in module.named_parameters()} - {"weight", "bias"}
    if own and type(module).train is not nn.Module.train:
        return (
            f"not one that {type(module).__name__}.train() may merge {listed(sorted(own))} into; "
            "merge them for good into a layer of torch"
        )
    return None
