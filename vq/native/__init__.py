"""Programs of others: compilers, tools, and a cache of what they made."""

from vq.native.cache import cache_folder, cached
from vq.native.library import compiled, kernels
from vq.native.scratch import scratch_folder
from vq.native.tool import command_of, run_tool

__all__ = [
    "cache_folder",
    "cached",
    "command_of",
    "compiled",
    "kernels",
    "run_tool",
    "scratch_folder",
]
