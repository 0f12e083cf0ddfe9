"""Integer graphs of transformers: rows of tokens, attention, norms, a cache of keys and values.

``docs/spec-integer-graph.md`` specifies them as version 4. Reading and running one needs numpy
only.
"""

from vq.integer.tokens.arithmetic import Rows
from vq.integer.tokens.golden import Cache, TokenModel
from vq.integer.tokens.graph import TokenGraph, TokenNode
from vq.integer.tokens.store import has_tokens, read_tokens, store_tokens

__all__ = [
    "Cache",
    "Rows",
    "TokenGraph",
    "TokenModel",
    "TokenNode",
    "has_tokens",
    "read_tokens",
    "store_tokens",
]
