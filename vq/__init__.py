"""Codebook compression of PyTorch models by vector quantisation with learnable signs.

The names below are imported when they are first used, so that ``vq.container`` and its readers
work where PyTorch is not installed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vq.compress import CompressResult, compress_
    from vq.formats.codebook import SSVQ, VQ
    from vq.formats.scalar import Int2, Int3, Int4, Int8
    from vq.inference.modules import pack_
    from vq.learning.blocks import finetune_blocks_
    from vq.learning.distil import distil_
    from vq.learning.finetune import FinetuneResult, Rates, finetune_
    from vq.learning.objective import Distillation
    from vq.learning.rules.refinement import Refinement
    from vq.learning.rules.signs import Freezing
    from vq.recipe.planning import Plan, plan
    from vq.recipe.recipe import Recipe
    from vq.search import allocate, sensitivity
    from vq.storage import load, save
    from vq.universal.door import universal_codebook

_HOME = {
    "SSVQ": "vq.formats.codebook",
    "VQ": "vq.formats.codebook",
    "CompressResult": "vq.compress",
    "Distillation": "vq.learning.objective",
    "Candidates": "vq.learning.rules.candidates",
    "FinetuneResult": "vq.learning.finetune",
    "Freezing": "vq.learning.rules.signs",
    "Int2": "vq.formats.scalar",
    "Int3": "vq.formats.scalar",
    "Int4": "vq.formats.scalar",
    "Int8": "vq.formats.scalar",
    "Plan": "vq.recipe.planning",
    "Rates": "vq.learning.finetune",
    "Recipe": "vq.recipe.recipe",
    "Refinement": "vq.learning.rules.refinement",
    "allocate": "vq.search",
    "compress_": "vq.compress",
    "distil_": "vq.learning.distil",
    "finetune_": "vq.learning.finetune",
    "finetune_blocks_": "vq.learning.blocks",
    "load": "vq.storage",
    "pack_": "vq.inference.modules",
    "plan": "vq.recipe.planning",
    "save": "vq.storage",
    "sensitivity": "vq.search",
    "universal_codebook": "vq.universal.door",
}

__all__ = [
    "SSVQ",
    "VQ",
    "Candidates",
    "CompressResult",
    "Distillation",
    "FinetuneResult",
    "Freezing",
    "Int2",
    "Int3",
    "Int4",
    "Int8",
    "Plan",
    "Rates",
    "Recipe",
    "Refinement",
    "allocate",
    "compress_",
    "distil_",
    "finetune_",
    "finetune_blocks_",
    "load",
    "pack_",
    "plan",
    "save",
    "sensitivity",
    "universal_codebook",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'vq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
