"""Texts of a calibration: their tokens, and how long they may be."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vq.calibration.batches import Batch, split
from vq.errors import ConfigError

__all__ = ["check_length", "length_limit", "text_config", "tokens_in"]


def text_config(model: nn.Module) -> Any:
    """What a model of transformers says of its text, or another its ``config``; None without."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def length_limit(model: nn.Module) -> int | None:
    """Most tokens of a sequence, if a model of transformers says so."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit >= 1 else None


def tokens_in(batch: Batch) -> Tensor | None:
    """Tokens [B, T] of a batch, if that is what it holds."""
    inputs, _ = split(batch)
    tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    if isinstance(tokens, tuple) and tokens:
        tokens = tokens[0]
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.ndim != 2:
        return None
    return tokens


def check_length(model: nn.Module, batches: list[Batch], *, more: int = 0) -> None:
    """Refuse sequences longer than a model of transformers allows.

    Parameters
    ----------
    model : nn.Module
    batches : list of batches
    more : int
        Tokens in front of every sequence.

    Raises
    ------
    ConfigError
    """
    limit = length_limit(model)
    if limit is None:
        return
    for batch in batches:
        tokens = tokens_in(batch)
        if tokens is not None and tokens.shape[1] + more > limit:
            front = f" with the {more} in front" if more else ""
            raise ConfigError(
                f"calibration sequences must be at most the model's {limit} tokens long{front}, "
                f"not {tokens.shape[1] + more}"
            )
