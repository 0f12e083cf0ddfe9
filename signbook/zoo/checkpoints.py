"""Fill a model from a checkpoint file, without ever running code that the file brings."""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vq.errors import ConfigError, bulleted

__all__ = ["ReadsCheckpoint", "fit", "load_weights", "read_state"]

M = TypeVar("M", bound=nn.Module)
_SHOWN = 8
#: Where programs that train keep the state dictionary among other things; averages come last.
_INSIDE = (
    "state_dict", "model_state_dict", "model", "module",
    "state_dict_ema", "ema_state_dict", "model_ema", "ema",
)  # fmt: skip
#: Names that data-parallel training, Lightning and ``torch.compile`` put before those of a model.
_PREFIXES = ("module.", "model.", "_orig_mod.")
#: Names that wrappers put before those of the layers that they wrap.
_INNER = re.compile(r"(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
#: One of the files that a large checkpoint is split into.
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
#: What averages of weights count beside them (``torch.optim.swa_utils.AveragedModel``).
_COUNTER = "n_averaged"


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
    The prefixes ``module.``, ``model.`` and ``_orig_mod.`` may differ from the model's, and
    wrappers may be around its layers.

    Raises
    ------
    ConfigError
        If the file cannot be read or does not fit, or the model is lazy; it is then unchanged.
    """
    if lazy := [name for name, tensor in model.named_parameters() if is_lazy(tensor)]:
        raise ConfigError(
            f"model must have all its shapes, but {', '.join(lazy)} wait for data; "
            "run it on one batch first"
        )
    file = Path(path)
    if isinstance(model, ReadsCheckpoint) and file.suffix != ".safetensors":
        return fit(model, model.state_from(file), file)
    return fit(model, read_state(file), file)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a safetensors or torch file as a state dictionary on the CPU.

    A torch file may hold the dictionary under the key ``state_dict`` (so do Lightning's),
    ``model_state_dict``, ``model`` or ``module``, or one of an average if there is no other. Names
    are as they are in the file.

    Raises
    ------
    ConfigError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if path.name.endswith(".index.json"):
        raise ConfigError(
            f"{path}: weights must be one file, not the index of several; "
            "name the model hf:FOLDER, which reads them all"
        )
    if path.suffix == ".distcp" or os.path.isfile(path / ".metadata"):
        raise ConfigError(
            f"{path}: weights must be one file, not a distributed checkpoint; make it one by "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, FILE)"
        )
    if os.path.isdir(path):
        raise ConfigError(
            f"{path}: weights must be one file, not a folder; one of transformers is a model, "
            "hf:FOLDER"
        )
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: weights must be a readable file, not absent; see --weights")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ConfigError(
                f"{path}: must be a whole safetensors file, which it is not; it may be damaged, or "
                "a download that stopped: get it anew"
            ) from error
    try:
        with warnings.catch_warnings(action="ignore"):  # what it is, is said below
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, RuntimeError,
            ValueError, KeyError, AttributeError, IndexError) as error:  # fmt: skip
        raise ConfigError(
            f"{path}: must be a whole torch file of tensors only, {_instead(path)}"
        ) from error
    if isinstance(found, Mapping):
        found = next((found[k] for k in _INSIDE if isinstance(found.get(k), Mapping)), found)
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"{path}: must hold a state dictionary, not {type(found).__name__}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ConfigError(
                f"{path}: entry {name!r} must be a tensor, not {type(value).__name__}"
            )
        if hasattr(value, "to_local"):  # a DTensor
            raise ConfigError(
                f"{path}: entry {name!r} must be whole, not one process's part; save what "
                "torch.distributed.checkpoint.state_dict.get_model_state_dict gathers"
            )
    return dict(found)


def _instead(path: Path) -> str:
    """What a file is that torch cannot read as tensors, and what to do."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(2)
        kind = "a pickle of another program" if start[:1] == b"\x80" else "not one of torch"
        return f"but it is damaged or {kind}; write it by torch.save(model.state_dict(), PATH)"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "not a TorchScript program; save the state_dict() of the original model"
        lightning = any(
            b"pytorch-lightning_version" in archive.read(name)
            for name in names
            if name.endswith("/data.pkl")
        )
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # any file may come here, and torch names no errors
        objects = []
    if not objects:
        return "but it is damaged; fetch or write it again"
    made = f"not objects of {', '.join(sorted(objects)[:_SHOWN])}, whose code is never run"
    if lightning:
        return f"{made}; save the 'state_dict' of this Lightning checkpoint alone"
    return f"{made}; save model.state_dict() instead of the model"


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a file as the model does, as far as only wrappers' prefixes differ.

    The names that fit best are taken, those of the file if they fit as well as any.
    """
    best, most = dict(state), -1
    for names in _namings(list(state), wanted):
        named = dict(zip(names, state.values(), strict=True))
        fits = sum(n in wanted and wanted[n].shape == t.shape for n, t in named.items())
        if fits > most and len(named) == len(state):
            best, most = named, fits
    return best


def _namings(names: list[str], wanted: Collection[str]) -> Iterator[list[str]]:
    """Names as they are; without prefixes, one more at a time; with those that the model has."""
    yield names
    shorter = names
    while found := next((p for p in _PREFIXES if any(n.startswith(p) for n in shorter)), None):
        shorter = [name.removeprefix(found) for name in shorter]
        yield shorter
    inner = [_INNER.sub(r"\1", name) for name in names]  # layers wrapped alone
    yield inner
    bare = [_INNER.sub(r"\1", name) for name in shorter]  # and all of it
    yield bare
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in wanted):
            yield from (
                [prefix + name for name in given] for given in (names, shorter, inner, bare)
            )


def fit(model: M, state: Mapping[str, Tensor], path: Path) -> M:
    """Load ``state`` into ``model``; every tensor must have its place and its shape.

    Prefixes that wrappers give names are resolved against those that the model has.

    Raises
    ------
    ConfigError
        With every misfit at once; the model is then unchanged.
    """
    wanted = model.state_dict()
    if _COUNTER not in wanted:
        state = {name: tensor for name, tensor in state.items() if name != _COUNTER}
    state = _renamed(state, wanted)
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
        hint = ""
        if _SHARD.search(path.name):
            hint = "\nit is one of several files; name the model hf:FOLDER, which reads them all"
        raise ConfigError(bulleted(f"{path}: fit to {type(model).__name__}", shown + rest) + hint)
    kept = {name: wanted[name] for name in optional - state.keys()}
    model.load_state_dict({**kept, **state})
    return model.eval()
