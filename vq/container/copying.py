"""An open file written again: its layers as they are, beside other kept tensors."""

import os
from collections.abc import Mapping

from vq.container.order import to_stream
from vq.container.plan import FilePlan
from vq.container.reader import Container
from vq.container.writer import Kept, Layer, write_container

__all__ = ["layer_of", "write_copy"]


def write_copy(
    container: Container, path: str | os.PathLike[str], kept: Mapping[str, Kept]
) -> FilePlan:
    """Write the layers of an open container to ``path``, with these kept tensors, in this order.

    ``path`` may be the container's own: the file changes only when the new one is complete.

    Raises
    ------
    ContainerError
        If the container is damaged.
    OutputError
        If the file cannot be written.
    """
    layers = [layer_of(container, entry.geometry.name) for entry in container.layers]
    return write_container(path, layers, kept, container.provenance)


def layer_of(container: Container, name: str) -> Layer:
    """A layer of an open file, ready to be written again."""
    g = container.geometry(name)
    stored = g.codebook != "" and not g.in_rom
    return Layer(
        g,
        container.stream(name),
        container.scale(name)[: g.scales],  # a scale that is not stored reads as 1
        container.codebook(name) if stored else None,
        to_stream(container.group_scales(name), g.tile) if g.group else None,
        to_stream(container.group_zeros(name), g.tile) if g.zeros else None,
    )
