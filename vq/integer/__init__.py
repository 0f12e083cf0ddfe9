"""Integer graphs: a compressed network as int8 arithmetic that hardware repeats bit for bit.

``docs/spec-integer-graph.md`` specifies the arithmetic and how a container holds the graph.
Reading and running one needs numpy only; building one needs torch, which is imported then.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vq.integer.fixed import requantize, to_fixed
from vq.integer.golden import IntegerModel
from vq.integer.graph import Graph, Node
from vq.integer.store import PREFIX, is_integer_tensor, read_integer, run, store_integer

if TYPE_CHECKING:
    from vq.integer.build import add_integer, integerize

_LAZY = {"add_integer": "vq.integer.build", "integerize": "vq.integer.build"}

__all__ = [
    "PREFIX",
    "Graph",
    "IntegerModel",
    "Node",
    "add_integer",
    "integerize",
    "is_integer_tensor",
    "read_integer",
    "requantize",
    "run",
    "store_integer",
    "to_fixed",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vq.integer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
