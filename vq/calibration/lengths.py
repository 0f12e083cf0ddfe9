"""How long the texts of a calibration may be."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vq.calibration.batches import Batch, split
from vq.errors import ConfigError

__all__ = ["check_length"]


def check_length(model: nn.Module, batches: list[Batch]) -> None:
    """Refuse sequences longer than a model of transformers allows.

    Raises
    ------
    ConfigError
    """
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return
    for batch in batches:
        inputs, _ = split(batch)
        tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
        if isinstance(tokens, tuple) and tokens:
            tokens = tokens[0]
        if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.ndim != 2:
            continue
        if tokens.shape[1] > limit:
            raise ConfigError(
                f"calibration sequences must be at most the model's {limit} tokens long, "
                f"not {tokens.shape[1]}"
            )
