"""What a checkpoint of a stage holds, and what a run depends on."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from rescomp.methods import Method
from rescomp.quantize import Quantized, Report
from rescomp.settings import Settings
from vq.container import Geometry
from vq.container.header import canonical_json
from vq.distributed import ranks
from vq.formats.grids import Grid
from vq.learning.checkpoint import digest_of
from vq.recipe.recipe import Recipe
from vq.version import TOOL

__all__ = ["fingerprint_of", "pack", "unpack"]


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


def pack(found: Quantized) -> dict[str, Any]:
    """Codes and report of a layer as tensors and plain data."""
    zero = found.grid.zero
    return {
        "integers": found.integers.cpu(),
        "scale": found.grid.scale.cpu(),
        "zero": None if zero is None else zero.cpu(),
        "report": asdict(found.report),
    }


def unpack(item: dict[str, Any], geometry: Geometry) -> Quantized:
    """Undo :func:`pack`."""
    grid = Grid(item["scale"], item["zero"])
    return Quantized(geometry, item["integers"], grid, Report(**item["report"]))
