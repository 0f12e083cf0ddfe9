"""Finished stages on disk: complete or absent, never half written, never another run's."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rescomp.methods import Method
from rescomp.quantize import Quantized, Report
from rescomp.settings import Settings
from vq.container import Geometry
from vq.container.header import canonical_json
from vq.distributed import is_main, ranks
from vq.formats.grids import Grid
from vq.learning.checkpoint import Checkpoints, digest_of
from vq.recipe.recipe import Recipe
from vq.version import TOOL

__all__ = ["Saved", "fingerprint_of"]


def fingerprint_of(
    model: nn.Module, data: str, recipe: Recipe, method: Method, settings: Settings
) -> dict[str, str]:
    """What a run depends on, by subject."""
    return {
        "recipe": canonical_json(recipe.to_json()),
        "method": repr(method),
        "settings": repr(settings),
        "weights": digest_of(model),
        "data": data,
        "processes": str(ranks()),
        "versions": f"{TOOL}, torch {torch.__version__}",
    }


class Saved:
    """Codes of finished stages, a folder for each.

    Hidden states are not stored: they are many, and running finished blocks again gives the same.

    Parameters
    ----------
    folder : path or None
        None stores nothing.
    fingerprint : dict
        See :func:`fingerprint_of`.
    resume : bool
        Read what is there; otherwise anything there is refused.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, fingerprint: dict[str, str], *, resume: bool
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        self._fingerprint, self._resume = fingerprint, resume

    def _of(self, folder: Path, stage: int) -> Checkpoints:
        return Checkpoints(folder / f"stage-{stage:04}", self._fingerprint)

    def load(self, stage: int, geometries: dict[str, Geometry]) -> dict[str, Quantized] | None:
        """A finished stage; None if it is not.

        Raises
        ------
        ResumeError
            If it is another run's, or damaged.
        ConfigError
            If there is one, and the run is not resumed.
        OutputError
            If the folder cannot be made.
        """
        if self._folder is None:
            return None
        checkpoints = self._of(self._folder, stage)
        if not self._resume:
            checkpoints.require_none()
            return None
        state = checkpoints.latest()
        if state is None:
            return None
        return {name: _unpack(item, geometries[name]) for name, item in state["layers"].items()}

    def save(self, stage: int, found: dict[str, Quantized]) -> None:
        """Store a finished stage; in training by several processes, the first one does.

        Raises
        ------
        OutputError
        """
        if self._folder is not None and is_main():
            layers = {name: _pack(one) for name, one in found.items()}
            self._of(self._folder, stage).save(0, {"layers": layers})


def _pack(found: Quantized) -> dict[str, Any]:
    zero = found.grid.zero
    return {
        "integers": found.integers.cpu(),
        "scale": found.grid.scale.cpu(),
        "zero": None if zero is None else zero.cpu(),
        "report": asdict(found.report),
    }


def _unpack(item: dict[str, Any], geometry: Geometry) -> Quantized:
    grid = Grid(item["scale"], item["zero"])
    return Quantized(geometry, item["integers"], grid, Report(**item["report"]))
