"""The folder around packed weights: what the model is, what must be in it, how it is written."""

import contextlib
import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from signbook.files import make_folder, write_text
from signbook.naming import resolve_model
from vq.container import atomic_file
from vq.container.constants import DTYPE_BYTES
from vq.errors import ConfigError, bulleted
from vq.formats.kept import tied_tensors
from vq.progress import track

__all__ = ["WEIGHTS", "Architecture", "Stored", "read_architecture", "write_folder"]

#: Name of the weights in a folder.
WEIGHTS = "model.safetensors"
_BESIDE = (
    "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt", "spiece.model", "chat_template.*",
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor to write; ``data`` makes it, or its bytes, when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], NDArray[Any] | bytes]


@dataclass(frozen=True)
class Architecture:
    """A model of transformers without weights, and the local folder it came from, if any."""

    model: Any
    folder: Path | None

    def untied_linears(self) -> dict[str, nn.Linear]:
        """Linear layers whose weight is theirs alone, by name, in the model's order."""
        groups = tied_tensors(self.model.state_dict(keep_vars=True))
        tied = {name for names, _ in groups if len(names) > 1 for name in names}
        return {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.weight" not in tied
        }

    def require_fit(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse the tensors of another model.

        Raises
        ------
        ConfigError
        """
        problems = []
        state = self.model.state_dict(keep_vars=True)
        for names, tensor in tied_tensors(state):
            given = next((shapes[name] for name in names if name in shapes), None)
            if given is None:
                problems.append(f"tensor {names[0]!r} must be in the file")
            elif given != tuple(tensor.shape):
                problems.append(
                    f"tensor {names[0]!r} must have shape {tuple(tensor.shape)}, not {given}"
                )
        problems += [f"tensor {n!r} must be in the model" for n in shapes.keys() - state.keys()]
        if problems:
            raise ConfigError(bulleted(f"{file}: fit to the model", sorted(problems)))

    def config_json(self, dtype: str, about: dict[str, Any]) -> str:
        """Text of ``config.json``: the model's own, and how its weights are stored."""
        config = copy.deepcopy(self.model.config)
        config.architectures = [type(self.model).__name__]
        config.dtype = dtype
        config.quantization_config = about
        document = json.loads(config.to_json_string())
        document.pop("transformers_weights", None)  # where a folder of ours has its container
        return json.dumps(document, indent=2, sort_keys=True) + "\n"


def read_architecture(file: Path, model: str | None) -> Architecture:
    """Build the model of a container without its weights.

    Parameters
    ----------
    file : Path
        The container. Without ``model``, the ``config.json`` beside it says what the model is.
    model : str, optional
        ``hf:PATH_OR_ID``, or a ``py:`` factory that gives a model of transformers.

    Raises
    ------
    ConfigError
        If nothing says what the model is, it cannot be had, or it is not one of transformers.
    """
    if model is None:
        if not (file.parent / "config.json").is_file():
            raise ConfigError(
                f"{file}: must lie beside the config.json of its model, or come with "
                "--model hf:PATH_OR_ID"
            )
        model = f"hf:{file.parent}"
    place = Path(model.removeprefix("hf:"))
    hub = model.startswith("hf:")
    with torch.device("meta") if hub else contextlib.nullcontext():
        built = resolve_model(model, pretrained=False)
    if not hasattr(getattr(built, "config", None), "to_json_string"):
        raise ConfigError(
            f"{model}: must be a model of transformers, not {type(built).__name__}; "
            "--to dense writes the weights of any"
        )
    return Architecture(built, place if hub and place.is_dir() else None)


def write_folder(
    folder: Path, tensors: Sequence[Stored], config: str, source: Path | None
) -> list[Path]:
    """Write a folder that ``from_pretrained`` of transformers reads; ``config.json`` comes last.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    tensors : sequence of Stored
        One at a time is in memory.
    config : str
        Text of ``config.json``.
    source : Path, optional
        Folder whose tokenizer and generation settings go along.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ConfigError
        If the folder holds other weights, or is the source.
    OutputError
    """
    others = sorted(p.name for p in folder.glob("*.safetensors*") if p.name != WEIGHTS)
    if others or (source is not None and source.resolve() == folder.resolve()):
        what = others[0] if others else "the model's own config.json"
        raise ConfigError(f"{folder}: must be a new folder, not hold {what}; choose another --out")
    make_folder(folder)
    _write_safetensors(folder / WEIGHTS, tensors)
    written = [folder / WEIGHTS]
    if source is not None:
        for path in sorted({p for pattern in _BESIDE for p in source.glob(pattern)}):
            with atomic_file(folder / path.name) as target:
                target.write(path.read_bytes())
            written.append(folder / path.name)
    write_text(folder / "config.json", config)
    return [*written, folder / "config.json"]


def _write_safetensors(path: Path, tensors: Sequence[Stored]) -> None:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + DTYPE_BYTES[tensor.dtype] * int(np.prod(tensor.shape, dtype=np.int64))
        table[tensor.name] = {
            "dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end],
        }  # fmt: skip
        at = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    with atomic_file(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in track(tensors, "packing"):
            data = tensor.data()
            if not isinstance(data, bytes):
                data = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
            file.write(data)
