"""What a checkpoint of a stage holds, and what a run depends on."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from rescomp.codebooks.quantize import Coded
from rescomp.codebooks.settings import Fitting
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
    model: nn.Module,
    data: str,
    recipe: Recipe,
    method: Method,
    settings: Settings,
    fitting: Fitting,
    seed: int,
) -> dict[str, str]:
    """What a run depends on, by subject."""
    return {
        "recipe": canonical_json(recipe.to_json()),
        "method": repr(method),
        "settings": repr(settings),
        "codebooks": f"{fitting}, seed {seed}",
        "weights": digest_of(model),
        "data": data,
        "processes": str(ranks()),
        "versions": f"{TOOL}, torch {torch.__version__}",
    }


def pack(found: Quantized | Coded) -> dict[str, Any]:
    """Codes and report of a layer as tensors and plain data."""
    report = {"report": asdict(found.report)}
    if isinstance(found, Coded):
        return report | {
            "codebook": found.codebook.cpu(),
            "indices": found.indices.cpu(),
            "latent": found.latent.cpu(),
            "unit": found.unit.cpu(),
        }
    zero = found.grid.zero
    return report | {
        "integers": found.integers.cpu(),
        "scale": found.grid.scale.cpu(),
        "zero": None if zero is None else zero.cpu(),
    }


def unpack(item: Mapping[str, Any], geometry: Geometry) -> Quantized | Coded:
    """Undo :func:`pack`."""
    report = Report(**item["report"])
    if "codebook" in item:
        book, indices, latent, unit = (
            item[key] for key in ("codebook", "indices", "latent", "unit")
        )
        return Coded(geometry, book, indices, latent, unit, report)
    return Quantized(geometry, item["integers"], Grid(item["scale"], item["zero"]), report)
