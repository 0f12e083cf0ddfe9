"""Models in wrappers of torch: files hold the names that they have without."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vq.errors import ConfigError, bulleted

__all__ = ["bare", "listed", "wrapped_name"]

#: Wrappers whose one submodule is the model, by class: no file holds their prefixes.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
}
#: Wrappers inside which a model is no longer whole.
_SHARDED = "FullyShardedDataParallel"
_SHOWN = 8


def bare(model: nn.Module) -> nn.Module:
    """Return the model inside ``torch.compile`` and ``DataParallel``, which has the bare names.

    Raises
    ------
    ConfigError
        If something inside the model is wrapped so, sharded, of TorchScript or without a shape.
    """
    while inner := wrapped_name(model):
        model = model.get_submodule(inner)
    problems = []
    for name, module in model.named_modules():
        if inner := wrapped_name(module):
            problems.append(
                f"layer {name!r} must be bare, not in {type(module).__name__}; put its .{inner} in "
                "its place, and wrap it again afterwards"
            )
        elif isinstance(module, torch.jit.ScriptModule):
            problems.append(
                f"{f'layer {name!r}' if name else 'all of it'} must be a module of Python, not "
                "TorchScript; start from the model before it is scripted or traced"
            )
            break
        elif _is_of_torch(module, _SHARDED):
            problems.append(
                f"{f'layer {name!r}' if name else 'all of it'} must be whole, not in {_SHARDED}; "
                "start from the model before it is sharded"
            )
    if problems:
        raise ConfigError(bulleted("model", problems))
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise ConfigError(
            f"model must have all its shapes, but {listed(lazy)} wait for data; "
            "run it on one batch first"
        )
    return model


def wrapped_name(module: nn.Module) -> str | None:
    """Attribute of a wrapper of torch that holds the model, None of any other module."""
    return next((inner for kind, inner in _WRAPPERS.items() if _is_of_torch(module, kind)), None)


def _is_of_torch(module: nn.Module, name: str) -> bool:
    """Whether it is a ``name`` of torch; by its name, since importing some of them takes long."""
    kinds = type(module).__mro__
    return any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in kinds)


def listed(names: list[str]) -> str:
    """Names in an error, the first of many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
