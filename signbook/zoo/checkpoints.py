"""Fill a model from a checkpoint file, without ever running code that the file brings."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vq.errors import ConfigError, bulleted

__all__ = ["ReadsCheckpoint", "fit", "load_weights", "read_state"]

M = TypeVar("M", bound=nn.Module)
_SHOWN = 8


@runtime_checkable
class ReadsCheckpoint(Protocol):
    """A model whose published checkpoint needs translation, for names or file format."""

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read the published file as a state dictionary of this model."""
        ...


def load_weights(model: M, path: str | Path) -> M:
    """Fill ``model`` from a file, put it in evaluation mode and return it.

    A ``*.safetensors`` file holds the model's own state dictionary. Any other file is read as
    the model says (see :class:`ReadsCheckpoint`), else as a torch file with ``weights_only=True``.

    Raises
    ------
    ConfigError
        If the file cannot be read or does not fit; the model is then unchanged.
    """
    file = Path(path)
    if isinstance(model, ReadsCheckpoint) and file.suffix != ".safetensors":
        return fit(model, model.state_from(file), file)
    return fit(model, read_state(file), file)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a safetensors or torch file as a state dictionary on the CPU.

    A torch file may hold the dictionary under the key ``state_dict``; the prefix ``module.``
    that data-parallel training leaves is removed.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: weights must be a readable file, not absent; see --weights")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path}: must be a whole safetensors file, but {error}") from error
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, RuntimeError,
            ValueError, KeyError, AttributeError, IndexError) as error:  # fmt: skip
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{path}: must be a whole torch file of tensors only, but {reason}"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"{path}: must hold a state dictionary, not {type(found).__name__}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigError(
                f"{path}: entry {name!r} must be a tensor, not {type(value).__name__}"
            )
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return dict(found)


def fit(model: M, state: Mapping[str, Tensor], path: Path) -> M:
    """Load ``state`` into ``model``; every tensor must have its place and its shape.

    Raises
    ------
    ConfigError
        With every misfit at once; the model is then unchanged.
    """
    wanted = model.state_dict()
    optional = {name for name in wanted if name.endswith(".num_batches_tracked")}
    problems = [
        f"tensor {n!r} must be in the file" for n in wanted.keys() - state.keys() - optional
    ]
    problems += [f"tensor {n!r} must be in the model" for n in state.keys() - wanted.keys()]
    for name in state.keys() & wanted.keys():
        have, want = tuple(state[name].shape), tuple(wanted[name].shape)
        if have != want:
            problems.append(f"tensor {name!r} must have shape {want}, not {have}")
        elif not torch.isfinite(state[name]).all():
            problems.append(f"tensor {name!r} must be finite, not NaN or infinite")
    if problems:
        shown = sorted(problems)[:_SHOWN]
        rest = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise ConfigError(bulleted(f"{path}: fit to {type(model).__name__}", shown + rest))
    kept = {name: wanted[name] for name in optional - state.keys()}
    model.load_state_dict({**kept, **state})
    return model.eval()
