"""``*.vq.safetensors``: the packed file that software, hardware and measurement share.

Needs numpy only. The layout, ``vqstream/1``, is specified in ``docs/spec-vqstream-1.md``.
"""

from vq.container.account import LayerAccount, account
from vq.container.constants import (
    AXES,
    CHUNK_SUBVECTORS,
    GRANULE_BYTES,
    INDEX_BITS_MAX,
    LAYOUT,
    METHODS,
    PAGE_BYTES,
    SUBVECTOR_MAX,
    TILE_OUTPUTS,
)
from vq.container.geometry import Geometry
from vq.container.plan import FilePlan, Provenance, plan_file
from vq.container.reader import Container, LayerEntry, Span, open_container
from vq.container.writer import Kept, Layer, atomic_file, atomic_files, write_container
from vq.errors import (
    ConfigError,
    ContainerError,
    OutputError,
    SignbookError,
    SimulationError,
    bulleted,
)

__all__ = [
    "AXES",
    "CHUNK_SUBVECTORS",
    "GRANULE_BYTES",
    "INDEX_BITS_MAX",
    "LAYOUT",
    "METHODS",
    "PAGE_BYTES",
    "SUBVECTOR_MAX",
    "TILE_OUTPUTS",
    "ConfigError",
    "Container",
    "ContainerError",
    "FilePlan",
    "Geometry",
    "Kept",
    "Layer",
    "LayerAccount",
    "LayerEntry",
    "OutputError",
    "Provenance",
    "SignbookError",
    "SimulationError",
    "Span",
    "account",
    "atomic_file",
    "atomic_files",
    "bulleted",
    "open_container",
    "plan_file",
    "write_container",
]
