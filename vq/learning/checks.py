"""Which models can be trained at all."""

import torch
from torch import nn

from vq import distributed
from vq.errors import ConfigError
from vq.formats.kept import require_kept
from vq.formats.model import compressed_layers, kept_tensors, require_alone

__all__ = ["check_models"]


def check_models(model: nn.Module, teacher: nn.Module | None) -> None:
    """Refuse models that cannot be trained or stored, and a teacher that is the model itself.

    Raises
    ------
    ConfigError
    """
    if not any(True for _ in compressed_layers(model)):
        raise ConfigError("model must hold a compressed layer, not none; call vq.compress_ first")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ConfigError(
            "model must be bare, not wrapped in DistributedDataParallel; training wraps it"
        )
    if any(distributed.local(p) is not p for p in model.parameters()):
        raise ConfigError(
            "model must be whole on every process, not sharded; train a sharded model in a loop "
            "of your own (docs/training.md)"
        )
    half = [n for n, p in model.named_parameters() if p.requires_grad and p.dtype == torch.float16]
    if half:
        raise ConfigError(
            f"model must not train in float16, where Adam's steps vanish or overflow, as "
            f"{half[0]!r} would; train it after .float() or .bfloat16(), and cast it back"
        )
    require_alone(model)
    require_kept(kept_tensors(model))
    if teacher is model:
        raise ConfigError(
            "teacher must be another model, not the one that learns; "
            "copy.deepcopy it before vq.compress_"
        )
