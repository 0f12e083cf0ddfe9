"""Checkpoints of a training run: complete or absent, never half written, never another run's."""

import hashlib
import io
import os
import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vq.activations.runtime import runtime_tensors
from vq.container.writer import atomic_file
from vq.distributed import is_main
from vq.errors import ConfigError, OutputError, ResumeError
from vq.formats.model import provenance_of
from vq.version import TOOL

__all__ = ["Checkpoints", "StageCheckpoints", "clear", "digest_of", "marks_of"]

_KEEP = 2
_NAME = re.compile(r"step-(\d{10})-([0-9a-f]{16})\.pt")


class Checkpoints:
    """Folder of checkpoints.

    A file's name holds its step and the first digits of its sha256, so that damage is noticed.
    It appears under that name only when it is complete. The newest two are kept.

    Parameters
    ----------
    folder : path
        Created if need be.
    fingerprint : mapping of subject to value
        What the run depends on. Only checkpoints of an equal fingerprint are read.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: Mapping[str, str]) -> None:
        self._folder = Path(folder)
        self._fingerprint = dict(fingerprint)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: checkpoint_dir must be a folder that can be made ({error.strerror})"
            ) from error

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    def require_none(self) -> None:
        """Refuse to start anew where a run already is.

        Raises
        ------
        ConfigError
        """
        if found := self._files():
            raise ConfigError(
                f"{self._folder}: checkpoint_dir must be free of checkpoints, not hold "
                f"{found[0].name}; pass resume=True to continue, or name another folder"
            )

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then drop those older than the last two.

        Raises
        ------
        OutputError
            If there is no room; all earlier checkpoints are as they were.
        """
        buffer = io.BytesIO()
        torch.save({"fingerprint": self._fingerprint, **state}, buffer)
        data = buffer.getbuffer()
        digest = hashlib.sha256(data).hexdigest()[:16]
        with atomic_file(self._folder / f"step-{step:010}-{digest}.pt") as file:
            file.write(data)
        for old in self._files()[_KEEP:]:
            with suppress(OSError):
                old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole; None if there never was any.

        Also removes what an interrupted :meth:`save` left behind.

        Raises
        ------
        ResumeError
            If none is whole, or it belongs to another run.
        """
        for temporary in (*self._folder.glob(".step-*"), *self._folder.glob(".run.jsonl.*")):
            with suppress(OSError):
                temporary.unlink()
        files = self._files()
        for path in files:
            state = _read(path)
            if state is not None:
                self._require_ours(path, state["fingerprint"])
                return state
        if files:
            raise ResumeError(
                f"{files[0]}: checkpoint must be whole, but neither it nor any older one is; "
                "remove them to start anew"
            )
        return None

    def _files(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted((p for p in self._folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)

    def _require_ours(self, path: Path, theirs: Mapping[str, str]) -> None:
        ours = self._fingerprint
        differ = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if differ:
            raise ResumeError(
                f"{path}: checkpoint must come from this run, but its {', '.join(differ)} "
                f"{'differ' if len(differ) > 1 else 'differs'}; give what it was started with, "
                "or name another checkpoint_dir"
            )


class StageCheckpoints:
    """Finished stages of a walk through a model, in a folder for each.

    Parameters
    ----------
    folder : path
    fingerprint : mapping of subject to value
        What the run depends on.
    resume : bool
        Read what is there; otherwise anything there is refused.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fingerprint: Mapping[str, str],
        *,
        resume: bool,
    ) -> None:
        self._folder = Path(folder)
        self._fingerprint, self._resume = fingerprint, resume

    def _of(self, stage: int) -> Checkpoints:
        return Checkpoints(self._folder / f"stage-{stage:04}", self._fingerprint)

    def load(self, stage: int) -> dict[str, Any] | None:
        """State of a finished stage; None if it is not.

        Raises
        ------
        ResumeError
            If it is another run's, or damaged.
        ConfigError
            If there is one, and the run is not resumed.
        OutputError
            If the folder cannot be made.
        """
        checkpoints = self._of(stage)
        if self._resume:
            return checkpoints.latest()
        checkpoints.require_none()
        return None

    def save(self, stage: int, state: Mapping[str, Any]) -> None:
        """Store a finished stage; of several processes, the first one does.

        Raises
        ------
        OutputError
        """
        if is_main():
            self._of(stage).save(0, state)


def clear(folder: str | os.PathLike[str]) -> None:
    """Remove all checkpoints of a run that is over, those of its stages too, but not its log."""
    place = Path(folder)
    for path in (*sorted(place.rglob("*"), reverse=True), place):
        with suppress(OSError):  # what cannot go, or a folder that holds more, stays
            if _NAME.fullmatch(path.name):
                path.unlink()
            elif path.is_dir():
                path.rmdir()


def _read(path: Path) -> dict[str, Any] | None:
    """Return the contents of a file that is what its name says, else None."""
    matched = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if matched is None or hashlib.sha256(data).hexdigest()[:16] != matched[2]:
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError):
        return None
    return state


def digest_of(model: nn.Module) -> str:
    """sha256 of all parameters, buffers and what remains at run time, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name}{data.dtype}{tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
    for name, kept in runtime_tensors(model).items():
        digest.update(f"{name}{kept.dtype}{kept.shape}".encode() + kept.data)
    return digest.hexdigest()


def marks_of(model: nn.Module) -> dict[str, str]:
    """What training depends on besides its data and settings, by subject."""
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    return {
        "recipe": provenance_of(model).recipe,
        "weights": digest_of(model),
        "requires_grad": f"all but {', '.join(frozen)}" if frozen else "all",
        "versions": f"{TOOL}, torch {torch.__version__}",
    }
