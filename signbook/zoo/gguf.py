"""Language models in GGUF, the format of llama.cpp: one file with weights and tokenizer."""

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import nn

from signbook.extras import require
from signbook.zoo.hub import quiet_transformers, reason, silent_transformers
from vq.errors import ConfigError, OutputError
from vq.progress import bar

__all__ = ["gguf_in", "gguf_model", "gguf_tokenizer", "save_gguf"]

T = TypeVar("T")

#: Files that hold weights for transformers, which prefers them.
_WEIGHTS = ("*.safetensors", "*.bin")
#: One of the files that a large model is split into.
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_SHOWN = 4


def gguf_in(name: str) -> Path | None:
    """Find the GGUF that a name of a model means: the file itself, or the only one of a folder.

    None if the name means something else; so does a folder with other weights.

    Raises
    ------
    ConfigError
        If there are several, or the file does not exist.
    """
    path = Path(name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ConfigError(f"{name}: must be a GGUF that exists, not absent; see its path")
        return path
    if not path.is_dir() or any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        names = [file.name for file in found[:_SHOWN]] + ["..."] * (len(found) > _SHOWN)
        raise ConfigError(
            f"{name}: folder must hold one GGUF, not {len(found)} ({', '.join(names)}); "
            f"name one, such as {found[0]}"
        )
    return found[0] if found else None


def gguf_model(file: Path, *, pretrained: bool = True) -> nn.Module:
    """Load a causal language model, its weights dequantised.

    Parameters
    ----------
    file : Path
    pretrained : bool
        With the file's weights; else with fresh ones.

    Raises
    ------
    ConfigError
        If a package is missing, or the file is damaged, a part, or of a model that transformers
        does not know.
    """

    def load(transformers: Any, place: dict[str, str]) -> nn.Module:
        kind = transformers.AutoModelForCausalLM
        config = transformers.AutoConfig.from_pretrained(**place)
        model: nn.Module = kind.from_config(config)
        if not pretrained:
            return model
        how = {**place, "config": config, "output_loading_info": True}
        if hasattr(transformers, "GgufConfig"):  # older versions know nothing but dense weights
            how["quantization_config"] = transformers.GgufConfig(dequantize=True)
        packed, about = kind.from_pretrained(**how)
        if absent := sorted(about["missing_keys"]):
            raise ValueError(f"tensors are absent, {absent[0]!r} first of {len(absent)}")
        # A copy, as a model that came from quantised weights refuses to be saved.
        model.to(packed.dtype).load_state_dict(packed.state_dict())
        return model

    return _read(file, load)


def gguf_tokenizer(file: Path) -> Any:
    """Load the tokenizer of a GGUF.

    Raises
    ------
    ConfigError
        As :func:`gguf_model`.
    """

    def load(transformers: Any, place: dict[str, str]) -> Any:
        return transformers.AutoTokenizer.from_pretrained(**place)

    return _read(file, load)


def save_gguf(file: Path, folder: Path) -> None:
    """Write model and tokenizer of a GGUF into a folder, as transformers does.

    Raises
    ------
    ConfigError
        As :func:`gguf_model`.
    OutputError
        If the folder cannot be written.
    """
    parts: list[Any] = [gguf_model(file), gguf_tokenizer(file)]
    try:
        with silent_transformers():
            for part in parts:
                part.save_pretrained(os.fspath(folder))
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{folder}: must be writable, to hold what {file.name} holds; make room, or choose "
            "another place"
        ) from error


def _read(file: Path, load: Callable[[Any, dict[str, str]], T]) -> T:
    """Load from a file by transformers, with one kind of error."""
    subject = os.fspath(file)
    if _PART.search(file.name):
        raise ConfigError(
            f"{subject}: must be a whole GGUF, not one of several parts; join them by "
            "llama-gguf-split --merge FIRST WHOLE"
        )
    transformers = require("transformers", extra="gguf", purpose=subject)
    for package in ("gguf", "accelerate"):  # transformers needs both, depending on its version
        require(package, extra="gguf", purpose=subject)
    place = {"pretrained_model_name_or_path": os.fspath(file.parent), "gguf_file": file.name}
    with quiet_transformers(subject), bar(f"loading {file.name}", None):
        try:
            # Its bar here is not of those that transformers can switch off.
            with contextlib.redirect_stderr(io.StringIO()):
                return load(transformers, place)
        except Exception as error:  # of transformers, gguf, numpy, ...
            raise ConfigError(
                f"{subject}: must be a whole GGUF of a language model that transformers knows, but "
                f"{reason(error)}; get the file anew, or update transformers"
            ) from error
